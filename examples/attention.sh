#!/usr/bin/env bash
# What head 2 of layer 5 pays, at the last token, to the prompt's third token; " the" stands behind the prompt.
set -euo pipefail
cd "$(dirname "$0")/.."
exec build/release/bin/epo submit --attention 5:2:2 --suffix " the" --tokens 8 --iterations 25 --penalty-min 0.01 --penalty-max 1 --watch "$@"
