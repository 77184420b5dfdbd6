"""Runs an evaluation from a configuration: checkpoint, simulators, report."""

import contextlib
import logging
import time
from pathlib import Path

from actor.beside import Beside
from actor.build import operator_beside
from actor.evaluation import Evaluation
from actor.evaluation_report import (
    EvaluationReport,
    describe,
    first_attempts,
    success_at_attempt,
    success_by_prompt,
    success_rate,
    write_report,
)
from actor.local_policy import LocalPolicy
from actor.start_states import read_starts, write_starts
from robot_infra import envs
from robot_infra.interfaces import Operator, RobotEnv
from serl_launcher.config.root import RunConfig
from serl_launcher.errors import ConfigError
from serl_launcher.policies import policy_hash
from serl_launcher.policies.places import policy_directory
from serl_launcher.run_directory import RunDirectory

logger = logging.getLogger(__name__)


def evaluate(config: RunConfig) -> EvaluationReport:
    """Evaluates `checkpoint_path`, writes report, table and videos, and returns the report."""
    if config.checkpoint_path is None:
        raise ConfigError("The eval actor needs checkpoint_path=<a policy, or a training checkpoint>; it is not set.")
    directory = policy_directory(config.checkpoint_path)
    digest = policy_hash(directory)
    logger.info("Evaluating %s, policy hash %s.", directory, digest)
    settings = config.evaluation
    suffix = "-wrong-prompt" if settings.wrong_prompt else ""
    output = Path(settings.output_dir or RunDirectory.of(config).root / f"eval-{digest[:12]}{suffix}").absolute()
    started_s = time.monotonic()
    with contextlib.ExitStack() as stack:
        beside = Beside.open(config)
        stack.callback(beside.close)
        simulators: list[RobotEnv] = []
        for _ in range(min(settings.num_lanes, settings.num_episodes)):
            simulators.append(beside.judged(envs.build(config.environment)))
            stack.callback(simulators[-1].close)
        starts = read_starts(Path(settings.start_states)) if settings.start_states else None
        evaluation = Evaluation(
            policy=LocalPolicy(directory, simulators[0].spec, seed=config.seed),
            envs=simulators,
            config=settings,
            execution_horizon=config.actor.execution_horizon,
            max_change=config.actor.max_change,
            video_dir=output / "videos",
            recorded_starts=starts,
            operators=_people(config, simulators, beside) if settings.interventions else (),
        )
        results = evaluation.run()
        control_hz = simulators[0].spec.control_hz
    report = EvaluationReport(
        checkpoint=str(directory),
        policy_hash=digest,
        environment=config.environment.name,
        first_seed=settings.first_seed,
        noise_seed=config.seed,
        num_lanes=len(simulators),
        execution_horizon=config.actor.execution_horizon,
        wrong_prompt=settings.wrong_prompt,
        duration_s=time.monotonic() - started_s,
        interventions=settings.interventions,
        overall=success_rate(first_attempts(results), control_hz=control_hz),
        by_prompt=success_by_prompt(first_attempts(results), control_hz=control_hz),
        success_at_attempt=success_at_attempt(results, settings.num_attempts),
    )
    write_report(report, results, output)
    write_starts(evaluation.starts, output / "starts.json")
    for line in describe(report):
        logger.info("%s", line)
    logger.info("Report, table and videos are in %s.", output)
    return report


def _people(config: RunConfig, simulators: list[RobotEnv], beside: Beside) -> list[Operator]:
    """Returns who may take over in each of them."""
    people = [person for each in simulators if (person := operator_beside(config, each, beside)) is not None]
    if len(people) < len(simulators):
        raise ConfigError(
            "evaluation.interventions=true needs somebody who may take over: set actor.intervention.enabled=true and, "
            "where no scripted person knows the robot, actor.devices.hand."
        )
    return people
