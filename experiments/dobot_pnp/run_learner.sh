#!/usr/bin/env bash
# Learner: online rejection sampling on half demonstrations, half accepted episodes. More GPUs: training.num_gpus=4.
# Any override can be appended, e.g. unique_identifier=my_run; --help lists them.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
python=${PYTHON:-.venv/bin/python}
command -v "$python" >/dev/null || python=python3
exec "$python" -m learner \
    algo=reject_sampling_pi0 \
    task=dobot_pnp \
    policy=pi0 \
    unique_identifier=rlpd_pi0_online \
    dataset.offline_fraction=0.5 \
    training.num_gpus=1 \
    training.mixed_precision=bf16 \
    training.gradient_accumulation_steps=1 \
    training.deepspeed_config=config/zero2.json \
    "$@"
