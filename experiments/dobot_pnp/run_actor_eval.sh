#!/usr/bin/env bash
# Eval actor: loads checkpoint_path=..., no takeovers; s and f judge, the success rate comes with its interval.
# Any override can be appended, e.g. unique_identifier=my_run; --help lists them.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
python=${PYTHON:-.venv/bin/python}
command -v "$python" >/dev/null || python=python3
exec "$python" -m actor \
    task=dobot_pnp \
    policy=pi0 \
    unique_identifier=rlpd_pi0_online \
    actor.mode=eval \
    evaluation.num_episodes=100 \
    "$@"
