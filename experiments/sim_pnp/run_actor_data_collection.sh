#!/usr/bin/env bash
# Actor: the (scripted) person drives, everything is recorded.
# Any override can be appended, e.g. unique_identifier=my_run; --help lists them.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
python=${PYTHON:-.venv/bin/python}
command -v "$python" >/dev/null || python=python3
exec "$python" -m actor \
    algo=data_collection \
    task=sim_pnp \
    unique_identifier=data_collection \
    actor.mode=collect \
    environment.realtime_factor=0 \
    "$@"
