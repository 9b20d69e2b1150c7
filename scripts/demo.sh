#!/bin/sh
# Sets up what is missing, then trains two nets on handwritten digits and reports the curvature of their losses.
# Options are passed on: sh scripts/demo.sh --out DIR
set -eu
. "$(dirname "$0")/venv.sh"
environment .venv test
# The nets are tiny: a second thread gains nothing, and where another program uses the core it costs a lot.
OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
export OMP_NUM_THREADS
exec "$root/.venv/bin/hessmx" demo "$@"
