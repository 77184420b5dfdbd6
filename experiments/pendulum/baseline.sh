#!/usr/bin/env bash
# The same task, steps and seeds with stable-baselines3, in a virtual environment of its own (made on first use with uv).
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cd "$here/../.."
venv=${BASELINE_VENV:-outputs/pendulum/baseline-venv}
uv=${UV:-.venv/bin/uv}
if [ ! -x "$venv/bin/python" ]; then
    "$uv" venv --python 3.11 "$venv"
    "$uv" pip install --python "$venv/bin/python" "stable-baselines3==2.7.*" "gymnasium>=1.0"
fi
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
exec "$venv/bin/python" "$here/baseline.py" \
    --seeds "${SEEDS:-5}" \
    --steps "${STEPS:-20000}" \
    --output "${OUTPUT:-outputs/pendulum/baseline.json}" \
    "$@"
