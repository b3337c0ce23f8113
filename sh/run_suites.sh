#!/usr/bin/env bash
# Runs the suites, or the one that TEST_FILTER names.
set -euo pipefail
exec container-runner run-suites "$@"
