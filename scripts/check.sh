#!/bin/sh
# Linter and type checker over the checkout.
set -eu
. "$(dirname "$0")/venv.sh"
environment .venv test,check
cd "$root"
.venv/bin/ruff check .
.venv/bin/mypy
