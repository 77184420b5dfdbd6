#!/usr/bin/env bash
# Actor: the person drives with the leader arms, everything is recorded; s and f judge.
# Any override can be appended, e.g. unique_identifier=my_run; --help lists them.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
python=${PYTHON:-.venv/bin/python}
command -v "$python" >/dev/null || python=python3
exec "$python" -m actor \
    algo=data_collection \
    task=dobot_pnp \
    unique_identifier=data_collection \
    actor.mode=collect \
    environment.options.wait_for_after_done_time=1 \
    environment.options.wait_for_after_reset_time=2 \
    "$@"
