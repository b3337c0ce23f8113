#!/usr/bin/env bash
# Packs the evidence of the run.
set -euo pipefail
exec container-runner collect "$@"
