#!/usr/bin/env bash
# openpi-client 0.1.2 from PyPI, in an environment of its own, drives sim_pnp against learner.serve; then the eval
# actor plays the same start states with the same checkpoint, and both are compared.
# usage: openpi_client.sh CHECKPOINT [EPISODES] [OUTPUT]
# OPENPI_CLIENT_PYTHON names a Python that has the client already; PORT another port than 8000.
set -euo pipefail
checkpoint=$(realpath "${1:?usage: openpi_client.sh CHECKPOINT [EPISODES] [OUTPUT]}")
episodes=${2:-100}
output=$(realpath -m "${3:-outputs/openpi_client}")
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
python=${PYTHON:-.venv/bin/python}
command -v "$python" >/dev/null || python=python3
port=${PORT:-8000}
client=${OPENPI_CLIENT_PYTHON:-}
mkdir -p "$output"

if [[ -z $client ]]; then
    "$python" -m venv "$output/venv"
    client=$output/venv/bin/python
    # The client imports typing_extensions without requiring it; the rest is what the simulator needs.
    "$client" -m pip install --quiet --disable-pip-version-check \
        openpi-client==0.1.2 typing_extensions gymnasium hydra-core msgspec
fi

export HIORS_API_KEY=sim-pnp
"$python" -m learner.serve policy:checkpoint --policy.dir="$checkpoint" --host 127.0.0.1 --port "$port" &
server=$!
trap 'kill $server 2>/dev/null || true' EXIT
for _ in $(seq 300); do
    "$python" -c "import urllib.request as r; r.urlopen('http://127.0.0.1:$port/healthz')" 2>/dev/null && break
    kill -0 $server 2>/dev/null || { echo "The server ended; see above." >&2; exit 1; }
    sleep 0.5
done
PYTHONPATH='' "$client" experiments/sim_pnp/drive_with_openpi.py --port "$port" --episodes "$episodes" --output "$output/client"
kill $server
wait $server || true

bash experiments/sim_pnp/run_actor_eval.sh checkpoint_path="$checkpoint" evaluation.num_episodes="$episodes" \
    evaluation.num_videos=0 evaluation.output_dir="$output/eval_actor"
"$python" -m tools.compare_evaluations "$output/eval_actor" "$output/client"
