#!/bin/sh
# Builds the demo model: environment, training, conversion, evaluation.
#   tools/demo_model/build.sh [FOLDER]
# It works in FOLDER (build/demo_model), and then copies the model to src/dynemo/models/demo.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
work=${1:-"$root/build/demo_model"}
shipped="$root/src/dynemo/models/demo"
mkdir -p "$work" "$shipped/checkout"

if [ ! -x "$work/venv/bin/python" ]; then
    python3 -m venv "$work/venv"
    "$work/venv/bin/pip" install --quiet -r "$here/requirements.txt"
fi
python="$work/venv/bin/python"

# Always two threads: another number adds floats in another order, and gives another model.
# Waiting threads sleep, so that other programs do not slow down the training.
OMP_NUM_THREADS=2 OMP_WAIT_POLICY=PASSIVE "$python" "$here/train.py" "$work/checkout"
"$python" "$here/convert.py" "$work/checkout" "$work/demo.gguf" --type q8_0
"$python" "$here/convert.py" "$work/checkout" "$work/demo-f32.gguf" --type f32
"$python" "$here/evaluate.py" "GGUF, Q8_0=$work/demo.gguf" "Checkout=$work/demo-f32.gguf" --out "$work/accuracy.md"

cp "$work/demo.gguf" "$shipped/demo.gguf"
cp "$work"/checkout/* "$shipped/checkout/"
echo "Copied to $shipped. Put the table of $work/accuracy.md into its README.md."
