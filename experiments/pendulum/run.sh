#!/usr/bin/env bash
# Soft actor-critic on Pendulum-v1 in one process: 20 000 steps, 5 seeds; any override can be appended.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
python=${PYTHON:-.venv/bin/python}
command -v "$python" >/dev/null || python=python3
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
exec "$python" -m tools.train_single \
    --seeds "${SEEDS:-5}" \
    --steps "${STEPS:-20000}" \
    --output "${OUTPUT:-outputs/pendulum/ours.json}" \
    algo=sac \
    task=pendulum \
    seed=0 \
    "$@"
