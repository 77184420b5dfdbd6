"""Puts an actor together from its configuration."""

import contextlib
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from actor.batched_actions import BatchedActions
from actor.beside import Beside
from actor.clearance import Clearance
from actor.console import Console
from actor.console.loop_state import LoopState
from actor.console.shown_env import ShownEnv
from actor.intervention import Control
from actor.lanes import Lanes, check_lanes, opened_lanes
from actor.latency import LatencyEstimate
from actor.pacer import Pacer, num_late_ticks
from actor.plan import ChunkPolicy
from actor.policy_client import ActionService, RemotePolicy
from actor.progress import Progress
from actor.random_policy import RandomPolicy
from actor.realtime_plan import RealTimePlan
from actor.recorder import Recorder
from actor.reporting import Reporter, figures_of_all
from actor.rewards import JudgedEnv
from actor.rewards.late_labels import LateLabels
from actor.rollout import Rollout, gate_of
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

    rollout: Rollout | Lanes
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


@dataclass(frozen=True, kw_only=True, slots=True)
class _Shared:
    """What all rollouts of one actor have in common."""

    config: RunConfig
    spool: Spool
    client: LearnerClient
    clearance: Clearance
    progress: Progress
    beside: Beside
    console: Console | None


@contextlib.contextmanager
def opened(config: RunConfig) -> Iterator[Actor]:
    """Yields the actor of this configuration; closes robot, network and spool in that order afterwards."""
    check_lanes(config)
    run, actor = RunDirectory.of(config), config.actor
    with contextlib.ExitStack() as stack:
        spool = Spool(
            run.spool(actor.id), max_bytes=config.transport.spool_max_bytes, when_full=config.transport.spool_when_full
        )
        stack.callback(spool.close)
        beside = Beside.open(config)
        stack.callback(beside.close)
        if actor.num_lanes > 1:
            lanes = stack.enter_context(opened_lanes(actor.num_lanes, lambda: build_env(config, beside)))
            env = lanes[0].env
        else:
            lanes, env = [], build_env(config, beside)
            stack.callback(env.close)
        client = LearnerClient(config.transport, config.ip, actor_id=actor.id, spec=env.spec, spool=spool)
        client.start()
        stack.callback(client.close)
        shared = _Shared(
            config=config, spool=spool, client=client, clearance=Clearance(learner=client, room=spool), beside=beside,
            progress=Progress.load(run.spool(actor.id).with_name(f"{actor.id}.progress.json")),
            console=Console.of(config, beside.bus) if actor.console.enabled else None,
        )  # fmt: skip
        if lanes:
            service = BatchedActions(_service(shared, env.spec), num_lanes=len(lanes))
            stack.callback(service.close)
            rollouts = [_rollout(shared, lane.env, service, lane=index) for index, lane in enumerate(lanes)]
            yield _actor(shared, Lanes(rollouts=rollouts, lanes=lanes, clearance=shared.clearance), rollouts)
            return
        rollout = _rollout(shared, env, _service(shared, env.spec))
        if shared.console is not None and isinstance(env, ShownEnv):
            stack.callback(shared.console.close)
            state = LoopState(
                rollout=rollout, env=env, desk=shared.console.desk, spool=spool, connection=client,
                recovery=shared.console.recovery,
            )  # fmt: skip
            shared.console.serve(rollout.gate, env, state)
        yield _actor(shared, rollout, [rollout])


def build_env(config: RunConfig, beside: Beside) -> RobotEnv:
    """Returns the robot with its judges, filmed where that is configured."""
    env = beside.judged(envs.build(config.environment))
    if config.environment.save_video:
        env = FilmedEnv(env, RunDirectory.of(config).root / "videos")
    return ShownEnv(env) if config.actor.console.enabled else env


def _rollout(shared: _Shared, env: RobotEnv, service: ActionService, *, lane: int = 0) -> Rollout:
    """Returns the control loop of one robot, or of one lane."""
    config, actor, run = shared.config, shared.config.actor, RunDirectory.of(shared.config)
    speed = env.spec.control_hz * config.environment.realtime_factor
    gate = gate_of(env, safety.limits_of(env.spec, actor.max_change, max_jump=actor.max_jump))
    policy = _policy(shared, env.spec, service, gate, lane)
    operator, console = operator_beside(config, env, shared.beside), shared.console
    control = Control(
        policy=policy,
        operator=operator if console is None else console.operator(env.spec, operator),
        execution_horizon=actor.execution_horizon,
        plan=_realtime_plan(config, policy, 1 / speed if speed else 0.0),
    )
    name = f"actor-{actor.id}" + (f"-lane-{lane}" if lane else "")
    return Rollout(
        env=env,
        control=control,
        gate=gate,
        recorder=Recorder(log=shared.spool, spec=env.spec, actor_id=actor.id),
        progress=shared.progress,
        clearance=shared.clearance,
        pacer=Pacer(1 / speed if speed and not keeps_time(env) else 0.0),
        bus=shared.beside.bus,
        seed_offset=actor.seed_offset,
        timings=TimingLog(path=run.metrics / f"{name}-timings.jsonl"),
        recovery=None if console is None else console.recovery,
    )


def _actor(shared: _Shared, player: Rollout | Lanes, rollouts: Sequence[Rollout]) -> Actor:
    actor = shared.config.actor
    reporter = Reporter(
        progress=shared.progress,
        connection=shared.client,
        status_path=RunDirectory.of(shared.config).status(f"actor-{actor.id}"),
        num_unsent=lambda: shared.spool.num_pending,
        num_late_ticks=lambda: sum(num_late_ticks(each.env, each.pacer) for each in rollouts),
        figures=lambda: figures_of_all([_figures(each.control) for each in rollouts]),
    )
    return Actor(
        rollout=player, reporter=reporter, client=shared.client, spool=shared.spool, clearance=shared.clearance,
        config=actor, labels=LateLabels(bus=shared.beside.bus, recorder=rollouts[0].recorder, progress=shared.progress),
    )  # fmt: skip


def _figures(control: Control) -> dict[str, float]:
    policy = control.policy
    return {**control.figures(), **(policy.figures() if isinstance(policy, RemotePolicy) else {})}


def operator_beside(config: RunConfig, env: RobotEnv, beside: Beside) -> Operator | None:
    """Returns who may take over: a device in the hand, else a scripted person where the simulator has one."""
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


def _service(shared: _Shared, spec: RobotSpec) -> ActionService:
    """Returns who is asked for actions: the learner, or weights of its in this process."""
    config = shared.config
    if config.actor.policy != "local" or config.actor.mode == "collect":
        return shared.client
    from actor.local_policy import FollowingPolicy  # Brings torch, which a robot machine need not have.

    cache = RunDirectory.of(config).root / "fetched_policies"
    return FollowingPolicy(shared.client, spec, cache=cache, seed=config.seed, device=config.actor.device)


def _policy(
    shared: _Shared, spec: RobotSpec, service: ActionService, gate: safety.Gate, lane: int
) -> ChunkPolicy | None:
    """Returns who proposes actions; a stopped actor and a robot with a fault do not wait for them."""
    config = shared.config
    if config.actor.mode == "collect":
        return None
    if config.actor.policy == "random":
        return RandomPolicy(spec, seed=config.seed + lane)
    return RemotePolicy(
        service,
        timeout_s=config.transport.request_timeout_s,
        is_stopping=lambda: shared.clearance.is_stopping() or gate.fault is not None,
        wait_for_policy_s=config.actor.wait_for_policy_s,
    )
