#!/usr/bin/env bash
# Learner: supervised fine-tuning on the recorded demonstrations; needs no actor.
# Any override can be appended, e.g. unique_identifier=my_run; --help lists them.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
python=${PYTHON:-.venv/bin/python}
command -v "$python" >/dev/null || python=python3
exec "$python" -m learner \
    algo=sft_pi0 \
    task=sim_pnp \
    policy=pi0_tiny \
    unique_identifier=offline_sft \
    training.num_threads=2 \
    "$@"
