"""The files of an evaluation, written anew after every episode: whatever ends it, what was done is there."""

import time
from dataclasses import dataclass, field
from pathlib import Path

from actor.evaluation import Evaluation
from actor.evaluation_report import (
    EvaluationReport,
    first_attempts,
    success_at_attempt,
    success_by_prompt,
    success_rate,
    write_report,
)
from actor.start_states import write_starts
from serl_launcher.config.root import RunConfig


@dataclass(kw_only=True, slots=True)
class EvaluationFiles:
    """Makes the report of an evaluation and keeps it on disk."""

    config: RunConfig
    checkpoint: Path
    policy_hash: str
    directory: Path
    started_s: float = field(default_factory=time.monotonic)

    def write(self, evaluation: Evaluation, *, sync: bool = False) -> EvaluationReport:
        """Writes report, table and start states as they are now; returns the report."""
        report, results = self._report(evaluation), evaluation.attempts.in_order()
        write_report(report, results, self.directory, sync=sync)
        write_starts(evaluation.starts, self.directory / "starts.json", sync=sync)
        return report

    def _report(self, evaluation: Evaluation) -> EvaluationReport:
        settings, results = self.config.evaluation, evaluation.attempts.in_order()
        firsts, control_hz = first_attempts(results), evaluation.lanes[0].env.spec.control_hz
        return EvaluationReport(
            checkpoint=str(self.checkpoint),
            policy_hash=self.policy_hash,
            environment=self.config.environment.name,
            first_seed=settings.first_seed,
            noise_seed=self.config.seed,
            num_lanes=len(evaluation.lanes),
            execution_horizon=self.config.actor.execution_horizon,
            wrong_prompt=settings.wrong_prompt,
            duration_s=time.monotonic() - self.started_s,
            interventions=settings.interventions,
            overall=success_rate(firsts, control_hz=control_hz),
            by_prompt=success_by_prompt(firsts, control_hz=control_hz),
            success_at_attempt=success_at_attempt(results, settings.num_attempts),
            num_planned=evaluation.attempts.num_episodes,
        )
