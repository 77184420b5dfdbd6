#!/usr/bin/env bash
# Actor of run_learner_reject_sampling.sh; keeps a video of every episode.
# Any override can be appended, e.g. unique_identifier=my_run; --help lists them.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
python=${PYTHON:-.venv/bin/python}
command -v "$python" >/dev/null || python=python3
exec "$python" -m actor \
    algo=reject_sampling_pi0 \
    task=dobot_pnp \
    policy=pi0 \
    unique_identifier=rs_pi0_online \
    environment.save_video=true \
    "$@"
