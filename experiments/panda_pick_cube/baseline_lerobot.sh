#!/usr/bin/env bash
# The same task, demonstrations and expert with LeRobot's own learner and actor (`lerobot.rl`, two processes), for as
# many minutes. Needs an environment with hiors and, on top of run.sh's:
#     pip install lerobot==0.4.4 "grpcio>=1.73.1" "protobuf>=6.31.1" gym-hil==0.1.14 mujoco==3.3.0
# and OpenGL (MUJOCO_GL=egl or osmesa), although nothing is rendered. Any argument can be appended.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cd "$here/../.."
python=${PYTHON:-.venv/bin/python}
command -v "$python" >/dev/null || python=python3
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} # Else both processes take every core, and hinder each other.
export MUJOCO_GL=${MUJOCO_GL:-osmesa}
export PYTHONPATH=$PWD PYTHONWARNINGS=ignore HF_HUB_OFFLINE=1
exec "$python" "$here/baseline_lerobot.py" \
    --minutes "${MINUTES:-30}" \
    --seed "${SEED:-0}" \
    --demonstrations "${DEMONSTRATIONS:-5}" \
    --takeovers "${TAKEOVERS:-0.5}" \
    --output "${OUTPUT:-outputs/panda_pick_cube/lerobot.json}" \
    "$@"
