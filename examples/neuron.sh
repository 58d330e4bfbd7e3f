#!/usr/bin/env bash
# One MLP neuron: number 700 of layer 20.
set -euo pipefail
cd "$(dirname "$0")/.."
exec build/release/bin/epo submit --neuron 20:700 --tokens 8 --iterations 25 --watch "$@"
