#!/usr/bin/env bash
# The long run: the demo's procedure with more online learning, about an hour on two cores.
# Arguments are the demo's, e.g. --seed 1 --output outputs/long-1; --help lists them.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
python=${PYTHON:-.venv/bin/python}
command -v "$python" >/dev/null || python=python3
exec "$python" -m tools.demo --output outputs/long --online-seconds 2400 --fresh-sft-control "$@"
