"""Puts an actor together from its configuration."""

import contextlib
import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass

from actor.clearance import Clearance
from actor.intervention import ChunkPolicy, Control
from actor.pacer import Pacer
from actor.policy_client import RemotePolicy
from actor.progress import Progress
from actor.recorder import Recorder
from actor.reporting import Reporter
from actor.rollout import Rollout
from actor.spool import Spool
from actor.video import FilmedEnv
from robot_infra import envs, safety
from robot_infra.interfaces import Operator, RobotEnv
from serl_launcher.config.actor import ActorConfig
from serl_launcher.config.root import RunConfig
from serl_launcher.run_directory import RunDirectory
from serl_launcher.specs import RobotSpec
from serl_launcher.transport.client import LearnerClient

logger = logging.getLogger(__name__)

STOPPED_FLUSH_S = 5.0
"""How long an actor that was told to stop still waits for the learner."""


@dataclass(kw_only=True, slots=True)
class Actor:
    """One robot with everything it needs; `opened` makes it and closes it."""

    rollout: Rollout
    reporter: Reporter
    client: LearnerClient
    spool: Spool
    clearance: Clearance
    config: ActorConfig

    def run(self) -> None:
        """Delivers what an earlier start left behind, then plays and records until done or stopped."""
        self.rollout.recorder.close_abandoned()
        self.reporter.write()
        try:
            self.rollout.run(
                num_episodes=self.config.num_episodes,
                after_episode=self.reporter.after_episode,
                on_tick=self.reporter.on_tick,
            )
        finally:
            self._hand_over()

    def _hand_over(self) -> None:
        """Waits until the learner has everything, but not long where somebody wants the actor to end."""
        patience_s = (
            min(self.config.flush_s, STOPPED_FLUSH_S) if self.clearance.was_asked_to_stop else self.config.flush_s
        )
        if self.clearance.is_refused or not self.client.flush(patience_s):
            logger.warning(
                "The learner has not confirmed %d recorded events; they stay in the spool. "
                "Start this actor again when the learner runs: it delivers them.",
                self.spool.num_pending,
            )
        self.reporter.write()
        progress = self.rollout.progress
        logger.info(
            "%d episodes finished, %.0f %% success in the last 20.",
            progress.num_finished,
            100 * progress.success_rate(),
        )


@contextlib.contextmanager
def opened(config: RunConfig) -> Iterator[Actor]:
    """Yields the actor of this configuration; closes robot, network and spool in that order afterwards."""
    run, actor = RunDirectory.of(config), config.actor
    with contextlib.ExitStack() as stack:
        spool = Spool(
            run.spool(actor.id), max_bytes=config.transport.spool_max_bytes, when_full=config.transport.spool_when_full
        )
        stack.callback(spool.close)
        env = build_env(config)
        stack.callback(env.close)
        client = LearnerClient(config.transport, config.ip, actor_id=actor.id, spec=env.spec, spool=spool)
        client.start()
        stack.callback(client.close)
        yield _assemble(config, env, client, spool)


def build_env(config: RunConfig) -> RobotEnv:
    """Returns the robot, filmed where that is configured."""
    env = envs.build(config.environment)
    return FilmedEnv(env, RunDirectory.of(config).root / "videos") if config.environment.save_video else env


def _assemble(config: RunConfig, env: RobotEnv, client: LearnerClient, spool: Spool) -> Actor:
    run, actor = RunDirectory.of(config), config.actor
    clearance = Clearance(learner=client, room=spool)
    speed = env.spec.control_hz * config.environment.realtime_factor
    pacer = Pacer(1 / speed if speed else 0.0)
    progress = Progress.load(run.spool(actor.id).with_name(f"{actor.id}.progress.json"))
    control = Control(
        policy=_policy(config, env.spec, client, clearance),
        operator=_operator(config, env),
        execution_horizon=actor.execution_horizon,
        # A robot does not wait for its policy; a simulated one whose time is not ours does.
        patience_s=pacer.period_s if config.environment.realtime_factor == 1 else math.inf,
    )
    rollout = Rollout(
        env=env,
        control=control,
        limits=safety.limits_of(env.spec, actor.max_change),
        recorder=Recorder(log=spool, spec=env.spec, actor_id=actor.id),
        progress=progress,
        clearance=clearance,
        pacer=pacer,
        seed_offset=actor.seed_offset,
    )
    reporter = Reporter(
        progress=progress,
        pacer=pacer,
        connection=client,
        status_path=run.status(f"actor-{actor.id}"),
        num_unsent=lambda: spool.num_pending,
    )
    return Actor(rollout=rollout, reporter=reporter, client=client, spool=spool, clearance=clearance, config=actor)


def _operator(config: RunConfig, env: RobotEnv) -> Operator | None:
    always_drive = config.actor.mode == "collect"
    if not (always_drive or config.actor.intervention.enabled):
        return None
    inner = env.env if isinstance(env, FilmedEnv) else env
    return envs.build_operator(inner, config.actor.intervention, always_drive=always_drive)


def _policy(config: RunConfig, spec: RobotSpec, client: LearnerClient, clearance: Clearance) -> ChunkPolicy | None:
    if config.actor.mode == "collect":
        return None
    if config.actor.policy == "remote":
        return RemotePolicy(
            client,
            timeout_s=config.transport.request_timeout_s,
            is_stopping=clearance.is_stopping,
            wait_for_policy_s=config.actor.wait_for_policy_s,
        )
    from actor.local_policy import FollowingPolicy  # Brings torch, which a robot machine need not have.

    cache = RunDirectory.of(config).root / "fetched_policies"
    return FollowingPolicy(client, spec, cache=cache, seed=config.seed, is_stopping=clearance.is_stopping)
