#!/usr/bin/env bash
# A Panda learns to lift a cube from 5 scripted demonstrations and a scripted expert who takes over, in one process.
# Needs gym-hil beside hiors (`pip install gym-hil==0.1.14`) and OpenGL (MUJOCO_GL=egl or osmesa), although nothing is
# rendered. Any override can be appended.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
python=${PYTHON:-.venv/bin/python}
command -v "$python" >/dev/null || python=python3
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
export MUJOCO_GL=${MUJOCO_GL:-osmesa}
exec "$python" -W ignore -m tools.train_single \
    --seeds "${SEEDS:-1}" \
    --steps "${STEPS:-20000}" \
    --expert-episodes "${DEMONSTRATIONS:-5}" \
    --takeovers "${TAKEOVERS:-0.5}" \
    --evaluations 50 \
    --output "${OUTPUT:-outputs/panda_pick_cube/ours.json}" \
    algo=rlpd \
    task=panda_pick_cube_state \
    algo.sac.reward_from=label \
    algo.sac.critic_ensemble_size=2 \
    algo.sac.critic_subsample_size=null \
    algo.sac.temperature_init=0.01 \
    seed=0 \
    "$@"
