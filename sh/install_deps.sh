#!/usr/bin/env bash
# Installs the required packages that are missing, and nothing else.
set -euo pipefail
exec container-runner deps "$@"
