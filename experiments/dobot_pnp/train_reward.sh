#!/usr/bin/env bash
# Trains the success classifier on labelled episodes (dataset.repo_id=[...]). More GPUs: training.num_gpus=4.
# Any override can be appended, e.g. unique_identifier=my_run; --help lists them.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
python=${PYTHON:-.venv/bin/python}
command -v "$python" >/dev/null || python=python3
exec "$python" -m learner \
    algo=reward_classifier \
    task=dobot_pnp \
    unique_identifier=reward \
    training.num_gpus=1 \
    "$@"
