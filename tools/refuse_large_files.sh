#!/usr/bin/env bash
# Fails for each named file above 500 kB; a pre-commit hook.
set -euo pipefail
status=0
for file in "$@"; do
    if (($(stat --format=%s -- "$file") > 500000)); then
        echo "$file is larger than 500 kB. Keep large files out of the repository." >&2
        status=1
    fi
done
exit $status
