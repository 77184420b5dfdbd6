#!/usr/bin/env bash
# Learner: rejection sampling on accepted online episodes alone, as in the paper.
# Any override can be appended, e.g. unique_identifier=my_run; --help lists them.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
python=${PYTHON:-.venv/bin/python}
command -v "$python" >/dev/null || python=python3
exec "$python" -m learner \
    algo=reject_sampling_pi0 \
    task=sim_pnp \
    policy=pi0_tiny \
    unique_identifier=rs_pi0_paper \
    dataset.offline_fraction=0.0 \
    "$@"
