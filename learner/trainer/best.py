"""Which checkpoint is the best one, by what was measured: held-out episodes, or the run's evaluations."""

import logging
from collections.abc import Callable
from pathlib import Path

import msgspec

from learner.trainer.checkpoints import policy_of, read_counters
from serl_launcher.errors import HiorsError
from serl_launcher.policies import policy_hash

logger = logging.getLogger(__name__)

HELD_OUT_LOSS = "held_out_loss"
"""Counter of a checkpoint."""

Score = Callable[[Path], float | None]
"""Returns what a checkpoint is worth, higher is better; None while that is not known."""


class _Rate(msgspec.Struct):
    success_rate: float
    num_episodes: int


class _Report(msgspec.Struct):
    policy_hash: str
    wrong_prompt: bool
    overall: _Rate


def score_of(keep_best: str, run_root: Path) -> Score | None:
    """Returns the score that `training.keep_best` names; None for `none`."""
    if keep_best == "held_out":
        return held_out_score
    return EvaluationScores(run_root) if keep_best == "evaluation" else None


def held_out_score(checkpoint: Path) -> float | None:
    """Returns minus the last loss on held-out episodes before the checkpoint."""
    loss = read_counters(checkpoint).get(HELD_OUT_LOSS)
    return None if loss is None else -loss


class EvaluationScores:
    """Success rates of evaluated policies, from the reports below a run's directory."""

    def __init__(self, run_root: Path) -> None:
        """Looks for `eval-*/report.json` below `run_root`, anew at each call."""
        self._root = run_root
        self._hashes: dict[Path, str] = {}

    def __call__(self, checkpoint: Path) -> float | None:
        """Returns the success rate of the checkpoint's policy over its longest evaluation."""
        reports = [report for report in self._reports() if not report.wrong_prompt]
        if not reports:
            return None
        if checkpoint not in self._hashes:
            self._hashes[checkpoint] = policy_hash(policy_of(checkpoint))
        own = [report.overall for report in reports if report.policy_hash == self._hashes[checkpoint]]
        return max(own, key=lambda rate: rate.num_episodes).success_rate if own else None

    def _reports(self) -> list[_Report]:
        found = []
        for path in sorted(self._root.glob("eval-*/report.json")):
            try:
                found.append(msgspec.json.decode(path.read_bytes(), type=_Report))
            except (msgspec.MsgspecError, OSError, HiorsError) as exc:
                logger.warning("The evaluation report %s is passed over: %s", path, exc)
        return found
