#!/usr/bin/env bash
# What makes the model's answer begin with "dog" rather than "cat", as a user's message that may not say so itself.
set -euo pipefail
cd "$(dirname "$0")/.."
exec build/release/bin/epo submit --logit-diff dog --versus cat --chat --ban dog --ban cat --tokens 8 --iterations 25 --watch "$@"
