"""Lets real actors record through a real learner while everything around them fails, then compares both sides."""

import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.chaos.checker import Verdict, compare, join, read_dataset, read_journal
from tests.chaos.faults import KINDS, Faults
from tests.chaos.processes import ActorProcess, Learner, wait_until

START_S = 240.0
PROGRESS_S = 180.0
"""Longest time without a recorded step before the campaign is given up as hung."""
DELIVER_S = 240.0
STOP_S = 180.0
SEALING_ROUNDS = 5


@dataclass(kw_only=True)
class Result:
    """What a campaign did and found."""

    verdict: Verdict
    faults: Counter[str]
    wall_s: float
    num_actor_starts: int = 0
    num_connections: int = 0
    num_unsealed: int = 0
    """Episodes that the learner had not sealed when it ended; the journal has them."""
    notes: list[str] = field(default_factory=list)


class Hang(Exception):
    """Somebody did not come back after all faults were lifted."""


@dataclass(kw_only=True)
class Campaign:
    """One run of the harness in a directory of its own."""

    directory: Path
    num_steps: int
    num_faults: int
    num_actors: int = 4
    rate_hz: float = 25.0
    recovery_s: float = 4.0
    """How long the next fault waits for every actor to deliver something after the last one; then they overlap."""
    has_trainer: bool = False
    """Whether a policy is trained, published and checkpointed meanwhile."""
    kinds: Sequence[str] = KINDS
    """What may go wrong."""
    seed: int = 0
    patience: float = 1.0
    """Factor on every wait before the system is called hung, for machines that others keep busy."""
    tell: Callable[[str], None] = lambda _: None

    def run(self) -> Result:
        """Returns the result; raises Hang where the system did not come back."""
        began_s = time.monotonic()
        self.directory.mkdir(parents=True, exist_ok=True)
        learner = Learner(self.directory, has_trainer=self.has_trainer)
        actors: list[ActorProcess] = []
        try:
            for index in range(self.num_actors):
                actor_id = f"robot-{index}"
                actors.append(ActorProcess(self.directory, actor_id, rate_hz=self.rate_hz, learner=learner))
            faults = Faults(learner=learner, actors=actors, draw=random.Random(self.seed), kinds=self.kinds)
            self._fail(learner, actors, faults)
            self._deliver(learner, actors, faults)
            notes = self._stop(learner)
        finally:
            for actor in actors:
                actor.close()
            learner.close()
        histories = [actor.history for actor in actors]
        sealed = read_dataset(learner.run_directory / "replay_buffer")
        unsealed = read_journal(learner.run_directory / "journal")
        found = join(sealed, unsealed)
        verdict = compare(histories, found)
        return Result(
            verdict=verdict,
            faults=faults.counts,
            wall_s=time.monotonic() - began_s,
            num_actor_starts=sum(history.num_starts for history in histories),
            num_connections=sum(actor.proxy.num_connections for actor in actors),
            num_unsealed=len(found) - len(sealed),
            notes=notes,
        )

    def _fail(self, learner: Learner, actors: list[ActorProcess], faults: Faults) -> None:
        """Injects the faults, spread evenly over the steps that are recorded."""
        recorded = lambda: sum(actor.history.num_steps for actor in actors)  # noqa: E731
        is_up = lambda: all(actor.history.acknowledged_seq for actor in actors)  # noqa: E731
        poll = lambda: _look_after(learner, actors, faults)  # noqa: E731
        if not wait_until(is_up, self.patience * START_S, poll):
            raise Hang("Not every actor has delivered something before the first fault.")
        before = [0] * len(actors)
        for number in range(self.num_faults):
            due = self.num_steps * (number + 1) // (self.num_faults + 1)
            if not wait_until(lambda due=due: recorded() >= due, self.patience * PROGRESS_S, poll):
                raise Hang(f"Only {recorded()} of {due} steps were recorded after {number} faults.")
            wait_until(lambda before=before: _have_all_delivered(actors, before), self.recovery_s, poll)
            what = faults.inject()
            before = [actor.history.acknowledged_seq for actor in actors]
            self.tell(f"{recorded():6d} steps, fault {number + 1:3d}: {what}")
        if not wait_until(lambda: recorded() >= self.num_steps, self.patience * PROGRESS_S, poll):
            raise Hang(f"Only {recorded()} of {self.num_steps} steps were recorded.")

    def _deliver(self, learner: Learner, actors: list[ActorProcess], faults: Faults) -> None:
        """Lifts every fault and waits until all actors have delivered and ended."""
        self.tell("All steps are recorded; faults are lifted, actors deliver.")
        faults.lift_all()
        for actor in actors:
            actor.finish()
        poll = lambda: _look_after(learner, actors, faults)  # noqa: E731
        if not wait_until(lambda: all(actor.is_finished for actor in actors), self.patience * DELIVER_S, poll):
            left = {actor.history.actor_id: actor.history.ended_seq for actor in actors if not actor.is_finished}
            raise Hang(f"Actors {sorted(left)} have not delivered everything in {self.patience * DELIVER_S:g} s.")

    def _stop(self, learner: Learner) -> list[str]:
        notes = []
        for _ in range(SEALING_ROUNDS):
            self.tell("Everything is acknowledged; the learner seals and ends.")
            status = learner.stop(self.patience * STOP_S)
            if status != 0:
                notes.append(f"the learner ended with status {status}")
            if not read_journal(learner.run_directory / "journal"):
                break
            learner.start()  # A slow disk: what is left is sealed by the next start.
            wait_until(learner.is_serving, self.patience * START_S, lambda: None)
        return notes


def _have_all_delivered(actors: list[ActorProcess], before: list[int]) -> bool:
    return all(actor.history.acknowledged_seq > seq for actor, seq in zip(actors, before, strict=True))


def _look_after(learner: Learner, actors: list[ActorProcess], faults: Faults) -> None:
    faults.lift_due()
    learner.ensure_running()
    for actor in actors:
        actor.ensure_running()
