#!/usr/bin/env bash
# Writes the locked packages of a checkout, and of the clients that its tests run, with the hashes of
# their files, from pyproject.toml:
#   tools/locks/lock.sh [--upgrade]      needs uv; keeps the versions that still fit, unless told to upgrade
set -euo pipefail
cd "$(dirname "$0")/../.."
compile() {
  local file=tools/locks/$1.txt; shift
  uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate \
    --custom-compile-command tools/locks/lock.sh --output-file "$file" "$@"
}
compile run pyproject.toml --group build "$@"
compile bench pyproject.toml --group build --group bench "$@"
compile dev pyproject.toml --group dev "$@"
compile clients --group clients "$@"
compile clients-llama-index --group clients-llama-index "$@"
