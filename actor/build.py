"""Puts an actor together from its configuration."""

import contextlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass

from actor.beside import Beside
from actor.clearance import Clearance
from actor.console import Console
from actor.console.shown_env import ShownEnv
from actor.intervention import Control
from actor.latency import LatencyEstimate
from actor.pacer import Pacer
from actor.plan import ChunkPolicy
from actor.policy_client import ActionService, RemotePolicy
from actor.progress import Progress
from actor.random_policy import RandomPolicy
from actor.realtime_plan import RealTimePlan
from actor.recorder import Recorder
from actor.reporting import Reporter
from actor.rewards import JudgedEnv
from actor.rewards.late_labels import LateLabels
from actor.rollout import Rollout
from actor.spool import Spool
from actor.steadiness import steady
from actor.timings import TimingLog
from actor.video import FilmedEnv
from robot_infra import envs, safety
from robot_infra.interfaces import Operator, RobotEnv, keeps_time
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
    labels: LateLabels

    def run(self) -> None:
        """Delivers what an earlier start left behind, then plays and records until done or stopped."""
        self.rollout.recorder.close_abandoned()
        self.reporter.write()
        try:
            with steady():
                self.rollout.run(
                    num_episodes=self.config.num_episodes,
                    after_episode=self.reporter.after_episode,
                    on_tick=self._on_tick,
                )
        finally:
            self.labels.apply()
            self._hand_over()

    def _on_tick(self) -> None:
        self.labels.apply()
        self.reporter.on_tick()

    def _hand_over(self) -> None:
        """Waits until the learner has everything, but not long where somebody wants the actor to end."""
        patience_s = (
            min(self.config.flush_s, STOPPED_FLUSH_S) if self.clearance.was_asked_to_stop else self.config.flush_s
        )
        self.rollout.write_refused_end(patience_s)
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
        beside = Beside.open(config)
        stack.callback(beside.close)
        env = build_env(config, beside)
        stack.callback(env.close)
        client = LearnerClient(config.transport, config.ip, actor_id=actor.id, spec=env.spec, spool=spool)
        client.start()
        stack.callback(client.close)
        console = Console.of(config, beside.bus) if config.actor.console.enabled else None
        actor = _assemble(config, env, client, spool, beside, console)
        if console is not None and isinstance(env, ShownEnv):
            stack.callback(console.close)
            console.serve(actor.rollout, env, spool, client)
        yield actor


def build_env(config: RunConfig, beside: Beside) -> RobotEnv:
    """Returns the robot with its judges, filmed where that is configured."""
    env = beside.judged(envs.build(config.environment))
    if config.environment.save_video:
        env = FilmedEnv(env, RunDirectory.of(config).root / "videos")
    return ShownEnv(env) if config.actor.console.enabled else env


def _assemble(
    config: RunConfig, env: RobotEnv, client: LearnerClient, spool: Spool, beside: Beside, console: Console | None
) -> Actor:
    run, actor = RunDirectory.of(config), config.actor
    clearance = Clearance(learner=client, room=spool)
    speed = env.spec.control_hz * config.environment.realtime_factor
    pacer = Pacer(1 / speed if speed and not keeps_time(env) else 0.0)
    progress = Progress.load(run.spool(actor.id).with_name(f"{actor.id}.progress.json"))
    policy = _policy(config, env.spec, client, clearance)
    operator = _operator(config, env, beside)
    control = Control(
        policy=policy,
        operator=operator if console is None else console.operator(env.spec, operator),
        execution_horizon=actor.execution_horizon,
        plan=_realtime_plan(config, policy, 1 / speed if speed else 0.0),
    )
    rollout = Rollout(
        env=env,
        control=control,
        limits=safety.limits_of(env.spec, actor.max_change, max_jump=actor.max_jump),
        recorder=Recorder(log=spool, spec=env.spec, actor_id=actor.id),
        progress=progress,
        clearance=clearance,
        pacer=pacer,
        seed_offset=actor.seed_offset,
        timings=TimingLog(path=run.metrics / f"actor-{actor.id}-timings.jsonl"),
        recovery=None if console is None else console.recovery,
    )
    labels = LateLabels(bus=beside.bus, recorder=rollout.recorder, progress=progress)
    reporter = Reporter(
        progress=progress,
        pacer=pacer,
        connection=client,
        status_path=run.status(f"actor-{actor.id}"),
        num_unsent=lambda: spool.num_pending,
        figures=lambda: {**control.figures(), **(policy.figures() if policy is not None else {})},
    )
    return Actor(
        rollout=rollout, reporter=reporter, client=client, spool=spool, clearance=clearance, config=actor, labels=labels
    )


def _operator(config: RunConfig, env: RobotEnv, beside: Beside) -> Operator | None:
    always_drive = config.actor.mode == "collect"
    if not (always_drive or config.actor.intervention.enabled):
        return None
    person = beside.operator(env.spec, always_drive=always_drive)
    if person is not None:
        return person
    inner = env
    while isinstance(inner, FilmedEnv | JudgedEnv | ShownEnv):
        inner = inner.env
    if config.actor.console.enabled and not envs.has_scripted_person(inner):
        return None
    return envs.build_operator(inner, config.actor.intervention, always_drive=always_drive)


def _realtime_plan(config: RunConfig, policy: ChunkPolicy | None, tick_s: float) -> RealTimePlan | None:
    """Returns how a robot asks ahead of time; None for a simulator, whose time waits for its policy."""
    if not isinstance(policy, RemotePolicy) or config.environment.realtime_factor != 1:
        return None
    actor = config.actor
    return RealTimePlan(
        policy=policy,
        execution_horizon=actor.execution_horizon,
        latency=LatencyEstimate(tick_s),
        chunking=actor.chunking,
        max_under_way=actor.max_requests,
        ensemble_decay=actor.ensemble_decay,
    )


def _policy(config: RunConfig, spec: RobotSpec, client: LearnerClient, clearance: Clearance) -> ChunkPolicy | None:
    if config.actor.mode == "collect":
        return None
    if config.actor.policy == "random":
        return RandomPolicy(spec, seed=config.seed)
    service: ActionService = client
    if config.actor.policy == "local":
        from actor.local_policy import FollowingPolicy  # Brings torch, which a robot machine need not have.

        cache = RunDirectory.of(config).root / "fetched_policies"
        service = FollowingPolicy(client, spec, cache=cache, seed=config.seed)
    return RemotePolicy(
        service,
        timeout_s=config.transport.request_timeout_s,
        is_stopping=clearance.is_stopping,
        wait_for_policy_s=config.actor.wait_for_policy_s,
    )
