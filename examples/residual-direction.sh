#!/usr/bin/env bash
# The standardised residual stream before layer 15, along the embedding of " ocean".
set -euo pipefail
cd "$(dirname "$0")/.."
folder=$(mktemp -d)
trap 'rm -r "$folder"' EXIT
token=$(build/release/bin/epo tokenize " ocean" -o jsonl | sed -n 's/^{"id":\([0-9]*\),.*/\1/p')
.venv/bin/python3 - "$token" "$folder/ocean.npy" <<'PY'
import sys

import numpy
from safetensors import safe_open

with safe_open("models/smollm2-135m/model.safetensors", "pt") as weights:
    row = weights.get_slice("model.embed_tokens.weight")[int(sys.argv[1])]
numpy.save(sys.argv[2], row.float().numpy())
PY
build/release/bin/epo submit --direction "$folder/ocean.npy@15" --standardized --tokens 8 --iterations 25 --watch "$@"
