#!/usr/bin/env bash
# Learner: supervised fine-tuning on demonstrations (dataset.repo_id=[...]); needs no actor. More GPUs: training.num_gpus=4.
# Any override can be appended, e.g. unique_identifier=my_run; --help lists them.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
python=${PYTHON:-.venv/bin/python}
command -v "$python" >/dev/null || python=python3
exec "$python" -m learner \
    algo=sft_pi0 \
    task=dobot_pnp \
    policy=pi0 \
    unique_identifier=offline_sft \
    algo.batch_size=16 \
    algo.optimizer.num_warmup_steps=1000 \
    algo.optimizer.num_decay_steps=30000 \
    training.checkpoint_period=5000 \
    training.num_gpus=1 \
    training.mixed_precision=bf16 \
    training.gradient_accumulation_steps=1 \
    training.deepspeed_config=config/zero2.json \
    "$@"
