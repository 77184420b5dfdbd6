"""N simulators in one actor (`actor.num_lanes`): N control loops, one spool, one session, one request for actions.

Each lane plays its own episodes in a thread of its own, in which its simulator was also made (OpenGL wants that).
Towards the learner all are one actor whose episodes overlap.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from actor.clearance import Clearance
from actor.progress import EpisodeSummary, Progress
from actor.recorder import Recorder
from actor.rollout import OnTick, Rollout
from robot_infra.interfaces import RobotEnv
from serl_launcher.config.root import RunConfig
from serl_launcher.errors import ConfigError

POLL_S = 0.05


@dataclass(kw_only=True, slots=True)
class Lane:
    """A simulator and the thread that alone touches it."""

    worker: ThreadPoolExecutor
    env: RobotEnv


@dataclass(kw_only=True, slots=True)
class Lanes:
    """Plays on all lanes at once; stands where a single rollout stands."""

    rollouts: Sequence[Rollout]
    lanes: Sequence[Lane]
    clearance: Clearance
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def recorder(self) -> Recorder:
        """The first lane's; all write to the same spool."""
        return self.rollouts[0].recorder

    @property
    def progress(self) -> Progress:
        """What all lanes count together."""
        return self.rollouts[0].progress

    def run(self, *, num_episodes: int, after_episode: Callable[[EpisodeSummary], None], on_tick: OnTick) -> None:
        """Plays until `num_episodes` have finished on all lanes together; an error of one lane ends all."""

        def finished(episode: EpisodeSummary) -> None:
            with self._lock:
                after_episode(episode)

        running = [
            lane.worker.submit(
                rollout.run, num_episodes=num_episodes, after_episode=finished, on_tick=_nothing
            )
            for lane, rollout in zip(self.lanes, self.rollouts, strict=True)
        ]  # fmt: skip
        try:
            while not all(each.done() for each in running):
                if any(each.done() and each.exception() is not None for each in running):
                    self.clearance.request_stop()
                with self._lock:
                    on_tick()
                time.sleep(POLL_S)
        except BaseException:
            self.clearance.request_stop()
            raise
        for each in running:
            each.result()

    def write_refused_end(self, patience_s: float) -> None:
        """Tries for a while to write the ends of episodes that the disk refused."""
        give_up_s = time.monotonic() + patience_s
        for rollout in self.rollouts:
            rollout.write_refused_end(max(give_up_s - time.monotonic(), 0.0))


@contextlib.contextmanager
def opened_lanes(num_lanes: int, make: Callable[[], RobotEnv]) -> Iterator[list[Lane]]:
    """Yields the lanes, each made in its own thread; closes them there."""
    with contextlib.ExitStack() as stack:
        lanes = []
        for index in range(num_lanes):
            worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"lane-{index}")
            stack.callback(worker.shutdown)
            lane = Lane(worker=worker, env=worker.submit(make).result())
            stack.callback(_close, lane)
            lanes.append(lane)
        yield lanes


def check_lanes(config: RunConfig) -> None:
    """Raises ConfigError where several lanes make no sense: a person or a clock would have to be at all of them."""
    actor = config.actor
    if actor.num_lanes == 1:
        return
    beside = [
        name
        for name, is_there in (
            ("actor.devices.keyboard", bool(actor.devices.keyboard)),
            ("actor.devices.hand", bool(actor.devices.hand)),
            ("actor.console.enabled", actor.console.enabled),
            ("environment.realtime_factor=1", config.environment.realtime_factor == 1),
            ("actor.rewards.sources", actor.rewards.sources != ["environment"]),
        )
        if is_there
    ]
    if beside:
        raise ConfigError(
            f"actor.num_lanes={actor.num_lanes} is for simulators that judge themselves and need no clock; it does not "
            f"go with {', '.join(beside)}."
        )


def _close(lane: Lane) -> None:
    lane.worker.submit(lane.env.close).result()


def _nothing() -> None:
    """Status and labels are the main thread's business."""
