#!/usr/bin/env bash
# Starts one task in one tmux session: left the actor, right the learner. A second start attaches; nothing is ever killed.
# Usage: tools/start_in_tmux.sh <folder in experiments> [--dry-run] [overrides for both sides]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
task=$1
shift
session=hiors_$task

is_dry_run=false
if [[ ${1:-} == --dry-run ]]; then
    is_dry_run=true
    shift
fi
overrides=""
(($#)) && printf -v overrides ' %q' "$@"
actor="bash experiments/$task/run_actor.sh$overrides"
learner="bash experiments/$task/run_learner.sh$overrides"

if $is_dry_run; then
    echo "left:  $actor"
    echo "right: $learner"
    exit 0
fi
if ! command -v tmux >/dev/null; then
    echo "tmux is missing (sudo apt-get install tmux). Without it, run these in two terminals, in any order:" >&2
    printf '    %s\n' "$learner" "$actor" >&2
    exit 1
fi

if tmux has-session -t "=$session" 2>/dev/null; then
    echo "Session $session is running already; it is left as it is."
else
    # The panes keep their output after the program ends.
    tmux new-session -d -s "$session" -x 200 -y 50 "$actor; exec bash"
    tmux split-window -h -t "=$session:" "$learner; exec bash"
    tmux select-pane -t "=$session:" -L
    echo "Session $session is started: left the actor, right the learner."
fi
if [[ -t 0 && -t 1 && -z ${TMUX:-} ]]; then
    exec tmux attach-session -t "=$session"
fi
echo "Look at it:   tmux attach -t $session"
echo "End it:       press Ctrl-C in both panes, then: tmux kill-session -t $session"
