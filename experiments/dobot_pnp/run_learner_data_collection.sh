#!/usr/bin/env bash
# Learner: records demonstrations; no policy, no trainer, no GPU.
# Any override can be appended, e.g. unique_identifier=my_run; --help lists them.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
python=${PYTHON:-.venv/bin/python}
command -v "$python" >/dev/null || python=python3
exec "$python" -m learner \
    algo=data_collection \
    task=dobot_pnp \
    unique_identifier=data_collection \
    "$@"
