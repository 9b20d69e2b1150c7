# Sourced by the scripts beside it: finds a Python, makes virtual environments, installs hessmx into them.
# Sets $root and $python; `environment NAME EXTRAS [REQUIREMENT...]` leaves a ready environment in $root/NAME.

fail() {
    echo "$*" >&2
    exit 1
}

supported() {
    command -v "$1" >/dev/null 2>&1 &&
        "$1" -c 'import sys; sys.exit(not (3, 9) <= sys.version_info[:2] <= (3, 12))' >/dev/null 2>&1
}

find_python() {
    if [ -n "${PYTHON:-}" ]; then
        supported "$PYTHON" || fail "PYTHON=$PYTHON is not a Python 3.9 to 3.12, which MXNet 1.9.1 needs: set PYTHON to one"
        python=$PYTHON
        return
    fi
    for python in python3.11 python3.10 python3.9 python3 python3.12 python; do
        supported "$python" && return
    done
    fail "no Python 3.9 to 3.12 found, which MXNet 1.9.1 needs: install one (Debian: apt-get install python3 python3-venv)" \
         "or set PYTHON to its path"
}

# MXNet needs the system library libgomp.so.1 and looks beside itself first; scikit-learn's wheel carries a copy.
lend_libgomp() {
    "$1/bin/python" -c 'import ctypes; ctypes.CDLL("libgomp.so.1")' 2>/dev/null && return
    for copy in "$1"/lib/python3*/site-packages/scikit_learn.libs/libgomp-*.so*; do
        if [ -e "$copy" ]; then
            ln -sf "../scikit_learn.libs/${copy##*/}" "${copy%/*/*}/mxnet/libgomp.so.1"
        fi
    done
}

environment() {
    directory=$root/$1 extras=$2
    shift 2
    stamp=$directory/.hessmx-$(cat "$root/pyproject.toml" | { cat; echo "$extras" "$@"; } | cksum | tr ' ' '-')
    [ -e "$stamp" ] && return
    if [ ! -x "$directory/bin/pip" ]; then
        echo "making $directory with $($python --version 2>&1)"
        "$python" -m venv --clear "$directory" || {
            rm -rf "$directory"
            fail "$python cannot make virtual environments: install its venv module (Debian: apt-get install python3-venv)"
        }
    fi
    echo "installing hessmx[$extras] and what it needs (once, some minutes)"
    "$directory/bin/pip" install --quiet --disable-pip-version-check --editable "$root[$extras]" "$@" ||
        fail "pip could not install hessmx into $directory: see its message above, then run this again"
    lend_libgomp "$directory"
    touch "$stamp"
}

root=$(cd "$(dirname "$0")/.." && pwd) || exit 1
find_python
