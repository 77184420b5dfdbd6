#!/usr/bin/env bash
# Compiles requirements/*.txt (exact versions with hashes, no index addresses) from pyproject.toml.
# Usage: tools/compile_locks.sh [path of uv]; `make lock` calls it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
uv="${1:-uv}"

compile() {
    "$uv" pip compile --quiet --python-version 3.11 --python-platform linux --generate-hashes --no-header \
        --no-emit-index-url --no-emit-find-links --no-annotate "$@" >/dev/null
}

compile pyproject.toml --extra learner --extra dev --extra sim --extra policy -o requirements/dev.txt
# The smaller environments take their versions from the largest, so that each contains the one before.
compile pyproject.toml --extra learner --extra policy --extra sim -c requirements/dev.txt -o requirements/learner.txt
compile pyproject.toml -c requirements/learner.txt -o requirements/robot.txt
echo uv | compile - -o requirements/uv.txt
