#!/bin/sh
# Sets up what is missing, then runs the smoke tests on NumPy 1.23 and the whole suite on the newest NumPy below 2.
# Options are passed on to the whole suite: sh scripts/test.sh -k lanczos
set -eu
. "$(dirname "$0")/venv.sh"
export OMP_NUM_THREADS=1
status=0
cd "$root"

if "$python" -c 'import sys; sys.exit(sys.version_info >= (3, 12))'; then
    environment .venv-numpy1.23 test 'numpy==1.23.*'
    echo "== smoke tests on NumPy 1.23"
    .venv-numpy1.23/bin/python -m pytest -q -m smoke -p no:cacheprovider || status=1
else
    echo "== NumPy 1.23 has no wheel for Python 3.12: its smoke tests are left out"
fi

environment .venv test
echo "== whole suite on NumPy $(.venv/bin/python -c 'import numpy; print(numpy.__version__)')"
.venv/bin/python -m pytest -q -n "${HESSMX_TEST_WORKERS:-2}" "$@" || status=1
exit $status
