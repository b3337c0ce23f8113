#!/usr/bin/env bash
# Builds the product.
set -euo pipefail
exec container-runner build "$@"
