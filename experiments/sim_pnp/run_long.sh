#!/usr/bin/env bash
# The long run: the demo with 25 minutes of online learning, the last five with weights averaged over five times as many
# updates; half an hour on two cores. A finished demo goes on where it ended: `--output outputs/demo`.
# Arguments are the demo's, e.g. --seed 1 --output outputs/long-1; --help lists them.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
python=${PYTHON:-.venv/bin/python}
command -v "$python" >/dev/null || python=python3
"$python" -m tools.demo --output outputs/long --online-seconds 1200 "$@"
exec "$python" -m tools.demo --output outputs/long --online-seconds 1500 "$@" algo.optimizer.ema=0.998
