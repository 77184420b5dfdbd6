"""Runs an evaluation from a configuration: checkpoint, robot or simulators, console, report."""

import contextlib
import importlib.util
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from actor.beside import Beside
from actor.build import operator_beside
from actor.console import Console
from actor.console.evaluation_state import EvaluationState
from actor.console.shown_env import ShownEnv
from actor.evaluation import Evaluation
from actor.evaluation_files import EvaluationFiles
from actor.evaluation_lane import Lane
from actor.evaluation_report import EvaluationReport, describe
from actor.local_policy import LocalPolicy
from actor.rollout import gate_of
from actor.start_states import read_starts
from robot_infra import envs, safety
from robot_infra.interfaces import Operator, RobotEnv, keeps_time
from serl_launcher.config.actor import EvaluationConfig
from serl_launcher.config.root import RunConfig
from serl_launcher.errors import ConfigError
from serl_launcher.policies import policy_hash
from serl_launcher.policies.places import policy_directory
from serl_launcher.run_directory import RunDirectory

logger = logging.getLogger(__name__)

LAST_VERDICT_S = 10.0
"""So long a person may judge the last episode."""


def evaluate(config: RunConfig, *, is_stopping: Callable[[], bool] = lambda: False) -> EvaluationReport:
    """Evaluates `checkpoint_path`, writes report, table and videos, and returns the report.

    Args:
        config: What to evaluate, and where.
        is_stopping: Whether the evaluation is to end early, with a report of what was done.
    """
    if config.checkpoint_path is None:
        raise ConfigError("The eval actor needs checkpoint_path=<a policy, or a training checkpoint>; it is not set.")
    directory = policy_directory(config.checkpoint_path)
    digest = policy_hash(directory)
    logger.info("Evaluating %s, policy hash %s.", directory, digest)
    settings = config.evaluation
    suffix = "-wrong-prompt" if settings.wrong_prompt else ""
    output = Path(settings.output_dir or RunDirectory.of(config).root / f"eval-{digest[:12]}{suffix}").absolute()
    files = EvaluationFiles(config=config, checkpoint=directory, policy_hash=digest, directory=output)
    with contextlib.ExitStack() as stack:
        evaluation = _opened(config, directory, files, is_stopping, stack)
        try:
            evaluation.run()
        except BaseException:
            if evaluation.attempts.results:
                _tell(files.write(evaluation, sync=True), output)
            raise
        report = files.write(evaluation, sync=True)
    _tell(report, output)
    return report


def _tell(report: EvaluationReport, output: Path) -> None:
    for line in describe(report):
        logger.info("%s", line)
    logger.info("Report, table and videos are in %s.", output)


def _opened(
    config: RunConfig,
    policy: Path,
    files: EvaluationFiles,
    is_stopping: Callable[[], bool],
    stack: contextlib.ExitStack,
) -> Evaluation:
    """Returns the evaluation of that policy; what it opens is closed by the stack."""
    settings = config.evaluation
    beside = Beside.open(config)
    stack.callback(beside.close)
    console = Console.of(config, beside.bus) if config.actor.console.enabled else None
    robots = _robots(config, beside, stack)
    operators = _people(config, robots, beside, console) if settings.interventions else [None] * len(robots)
    lanes = [
        _lane(config, env, operator, is_stopping) for env, operator in zip(robots, operators, strict=True)
    ]  # fmt: skip
    evaluation = Evaluation(
        policy=LocalPolicy(policy, robots[0].spec, seed=config.seed),
        lanes=lanes,
        config=_with_videos_where_possible(settings),
        execution_horizon=config.actor.execution_horizon,
        video_dir=files.directory / "videos",
        recorded_starts=read_starts(Path(settings.start_states)) if settings.start_states else None,
        prompts=config.environment.prompts,
        bus=beside.bus,
        recovery=None if console is None else console.recovery,
        is_stopping=is_stopping,
        last_verdict_s=LAST_VERDICT_S if console is not None or beside.keyboard is not None else 0.0,
    )
    evaluation.on_result = lambda: files.write(evaluation)
    if console is not None and isinstance(robots[0], ShownEnv):
        stack.callback(console.close)
        state = EvaluationState(
            evaluation=evaluation, env=robots[0], desk=console.desk, recovery=console.recovery
        )  # fmt: skip
        console.serve(lanes[0].gate, robots[0], state)
    return evaluation


def _robots(config: RunConfig, beside: Beside, stack: contextlib.ExitStack) -> list[RobotEnv]:
    """Returns the robot, or the simulators that play side by side, with their judges."""

    def opened() -> RobotEnv:
        env = beside.judged(envs.build(config.environment))
        stack.callback(env.close)
        return ShownEnv(env) if config.actor.console.enabled else env

    robots = [opened()]
    num_lanes = min(config.evaluation.num_lanes, config.evaluation.num_episodes)
    if num_lanes > 1 and not keeps_time(robots[0]):
        is_judged = beside.keyboard is not None or config.actor.rewards.sources != ["environment"]
        if is_judged or config.actor.console.enabled:
            raise ConfigError(
                f"evaluation.num_lanes={num_lanes} is for simulators that judge themselves; keys, a console and other "
                "judges are about one robot: set evaluation.num_lanes=1."
            )
        robots += [opened() for _ in range(num_lanes - 1)]
    return robots


def _lane(config: RunConfig, env: RobotEnv, operator: Operator | None, is_stopping: Callable[[], bool]) -> Lane:
    limits = safety.limits_of(env.spec, config.actor.max_change, max_jump=config.actor.max_jump)
    return Lane(env=env, gate=gate_of(env, limits), operator=operator, is_stopping=is_stopping)


def _people(
    config: RunConfig, robots: list[RobotEnv], beside: Beside, console: Console | None
) -> list[Operator]:  # fmt: skip
    """Returns who may take over in each of them."""
    people = [operator_beside(config, each, beside) for each in robots]
    if console is not None:
        people = [console.operator(robots[0].spec, people[0])]
    found = [person for person in people if person is not None]
    if len(found) < len(robots):
        raise ConfigError(
            "evaluation.interventions=true needs somebody who may take over: set actor.intervention.enabled=true and, "
            "where no scripted person knows the robot, actor.devices.hand or actor.console.enabled=true."
        )
    return found


def _with_videos_where_possible(settings: EvaluationConfig) -> EvaluationConfig:
    """Returns the settings without videos where they were not asked for by number and cannot be made."""
    if settings.num_videos is not None or importlib.util.find_spec("av") is not None:
        return settings
    logger.warning("The episodes are not filmed: videos need PyAV (`pip install av`).")
    return replace(settings, num_videos=0)
