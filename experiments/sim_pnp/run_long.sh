#!/usr/bin/env bash
# The long run: the demo's procedure with twice the online learning, 25 minutes on two cores. A finished demo goes on
# where it ended: `--output outputs/demo`.
# Arguments are the demo's, e.g. --seed 1 --output outputs/long-1; --help lists them.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
python=${PYTHON:-.venv/bin/python}
command -v "$python" >/dev/null || python=python3
exec "$python" -m tools.demo --output outputs/long --online-seconds 1200 "$@"
