#!/usr/bin/env bash
# Learner: chunked critics, and a policy that climbs them near its beginning (checkpoint_path: a trained policy).
# Any override can be appended, e.g. unique_identifier=my_run; --help lists them.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
python=${PYTHON:-.venv/bin/python}
command -v "$python" >/dev/null || python=python3
exec "$python" -m learner \
    algo=sac_pi0 \
    task=sim_pnp \
    policy=pi0_tiny \
    unique_identifier=sac_pi0_online \
    algo.optimizer.lr=1.0e-4 \
    "$@"
