#!/usr/bin/env bash
# Reinforcement learning from 20 scripted demonstrations on three tasks of Meta-World v3, in one process.
# Needs Meta-World beside hiors (`pip install metaworld==3.1.1`). Any override can be appended.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
python=${PYTHON:-.venv/bin/python}
command -v "$python" >/dev/null || python=python3
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
output=${OUTPUT:-outputs/metaworld}
for task in ${TASKS:-reach-v3 button-press-topdown-v3 drawer-open-v3}; do
    "$python" -W ignore -m tools.train_single \
        --seeds "${SEEDS:-1}" \
        --steps "${STEPS:-40000}" \
        --expert-episodes 20 \
        --evaluations 50 \
        --output "$output/$task.json" \
        algo=rlpd \
        task=metaworld \
        environment.options.make.env_name="$task" \
        algo.sac.reward_scale=0.1 \
        algo.sac.reward_bias=-1 \
        algo.sac.critic_ensemble_size=2 \
        algo.sac.critic_subsample_size=null \
        algo.sac.temperature_init=0.1 \
        seed=0 \
        "$@"
done
