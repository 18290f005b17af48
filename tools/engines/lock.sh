#!/usr/bin/env bash
# Writes the pinned requirement sets of `dynemo-run engine install` from the *.in files here:
#   tools/engines/lock.sh [vllm-cpu ...]        needs uv, and an index or find-links with the CPU build of torch
# Each line has the hashes of all files of its version, so that a changed file is not installed.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd); out=$here/../../src/dynemo/environments
links=$(pip config get global.find-links 2>/dev/null || true)
compile() {
  uv pip compile --quiet --universal --python-version 3.11 --no-header --no-annotate --generate-hashes \
    --prerelease if-necessary-or-explicit ${links:+--find-links "$links"} "$@"
}
for set in "${@:-vllm-cpu vllm-cuda sglang-cpu sglang-cuda mistralrs-any llama_cpp-any}"; do
  for name in $set; do
    file=$out/${name/-//}.txt
    echo "# All that is in the environment, written by tools/engines/lock.sh: installed without dependencies." > "$file"
    overrides=$here/$name.overrides
    # An entry for the platform 'never', with its hashes, stands for a package that is left out.
    compile $([ -f "$overrides" ] && echo --override "$overrides") "$here/$name.in" \
      | sed -e ':join' -e '/\\$/{N; b join' -e '}' -e "/^[^\n]*'never'/d" >> "$file"
    # Their own requirements are for a GPU and are left out. The other lines list the rest.
    [ "$name" != sglang-cpu ] || printf 'sglang==0.5.23\ntorchvision==0.28.0\n' | compile --no-deps - >> "$file"
  done
done
