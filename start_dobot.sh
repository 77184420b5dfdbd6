#!/usr/bin/env bash
# Starts dobot_pnp in one tmux session: left the actor (its keys count there), right the learner. A second start attaches; nothing is
# ever killed.
# Usage: ./start_dobot.sh [--dry-run] [overrides for both sides, e.g. unique_identifier=my_run]
set -euo pipefail
exec bash "$(dirname "${BASH_SOURCE[0]}")/tools/start_in_tmux.sh" dobot_pnp "$@"
