#!/bin/sh
# Sets up what is missing, then trains two nets on handwritten digits and reports the curvature of their losses.
# Options are passed on: sh scripts/demo.sh --out DIR
set -eu
. "$(dirname "$0")/venv.sh"
environment .venv test
exec "$root/.venv/bin/hessmx" demo "$@"
