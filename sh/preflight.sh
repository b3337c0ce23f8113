#!/usr/bin/env bash
# Tells what machine this is, and checks that the product can be built. Repairs nothing.
set -euo pipefail
exec container-runner preflight "$@"
