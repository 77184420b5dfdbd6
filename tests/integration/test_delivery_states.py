"""Sender, receiver, journal and sealing as one state machine: whatever is sent, doubled, dropped, delayed, restarted or
cut off while it is written, each event enters the journal once and in order, and each episode the dataset, with its
newest label."""

import os
import shutil
import tempfile
import threading
from pathlib import Path
from unittest.mock import patch

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from actor.spool import Spool
from learner.replay.reader import ReplayDataset
from learner.server.ingest import Committed, Ingest, StepBatch
from learner.server.sealing import Sealer, open_writer
from serl_launcher import failpoints
from serl_launcher.config.transport import TransportConfig
from serl_launcher.datasets.layout import DatasetLayout
from serl_launcher.datasets.metadata import EpisodeMetadata
from serl_launcher.datasets.recovery import contradicted_labels
from serl_launcher.errors import ProtocolError, Refused, SessionFenced
from serl_launcher.events import EpisodeEnded, EpisodeLabelled, EpisodeStarted, Event, StepRecorded, encode_event
from serl_launcher.journal import Journal
from serl_launcher.transport.delivery import Delivery
from serl_launcher.transport.messages import Hello
from serl_launcher.types import Outcome
from tests.transport_rig import SPEC, encoded, step

OUTCOMES = st.sampled_from(list(Outcome))
CONFIG = TransportConfig(max_batch_events=3, credits=2, durability="os")
ACTOR = "actor-0"


class Died(BaseException):
    """The learner got to a failpoint and goes no further: nothing in it can catch that."""


class DeliveryStates(RuleBasedStateMachine):
    """One actor, one learner, and a network in between that keeps batches and acknowledgements as long as it likes."""

    def __init__(self) -> None:
        super().__init__()
        memory = Path("/dev/shm")  # A sync takes no time there.
        self.root = Path(tempfile.mkdtemp(dir=memory if os.access(memory, os.W_OK) else None))
        self.recorded: list[Event] = []
        self.batches: list[StepBatch] = []
        """Under way to the learner; never removed by a delivery, so that each may arrive again."""
        self.acks: list[tuple[int, int]] = []
        """(session, acknowledged up to) under way to the actor."""
        self.open_episode: tuple[str, int] | None = None
        self.num_episodes = 0
        self.session = 0

    @initialize(episodes=st.lists(st.tuples(st.integers(0, 3), OUTCOMES), min_size=1, max_size=3))
    def start(self, episodes: list[tuple[int, Outcome]]) -> None:
        """Episodes wait in the spool, for Hypothesis leaves out rules at random: many examples record no more."""
        self.spool = self._open_spool()
        self.delivery = Delivery(CONFIG, self.spool)
        self._start_learner()
        self.reader = ReplayDataset(self.root / "replay")
        self._say_hello()
        for num_steps, outcome in episodes:
            self.record(num_steps, outcome)

    def teardown(self) -> None:
        if hasattr(self, "journal"):
            self.spool.close()
            self._stop_learner()
        shutil.rmtree(self.root)

    @precondition(lambda self: self.num_episodes)
    @rule(ago=st.integers(1, 2), outcome=OUTCOMES)
    def label(self, ago: int, outcome: Outcome) -> None:
        """One of the newest episodes gets a label, perhaps late, perhaps before its end."""
        name = f"e-{max(0, self.num_episodes - ago)}"
        self._append(EpisodeLabelled(name, outcome, "human", float(len(self.recorded))))

    @rule(num_steps=st.integers(0, 3), outcome=st.none() | OUTCOMES)
    def record(self, num_steps: int, outcome: Outcome | None) -> None:
        """Some steps, of a new episode where none is open; an outcome ends it."""
        if self.open_episode is None:
            self.open_episode = (f"e-{self.num_episodes}", 0)
            self.num_episodes += 1
            self._append(EpisodeStarted(self.open_episode[0], "reach", 1.0))
        name, first = self.open_episode
        for number in range(first, first + num_steps):
            self._append(step(name, number, value=len(self.recorded)))
        self.open_episode = (name, first + num_steps)
        if outcome is not None:
            self._append(EpisodeEnded(name, first + num_steps, encoded(), outcome, "human", 1.0))
            self.open_episode = None

    @rule()
    def send(self) -> None:
        """The actor sends what its window allows."""
        while (batch := self.delivery.next_batch(self.spool.last_seq)) is not None:
            self.batches.append(self._batch(batch.header.first_seq, batch.events))
            self.delivery.note_sent(batch)

    @precondition(lambda self: self.batches)
    @rule(data=st.data())
    def deliver(self, data: st.DataObject) -> None:
        """Some batches arrive, in any order, perhaps again, perhaps of a session that is over."""
        chosen = data.draw(st.lists(st.sampled_from(range(len(self.batches))), min_size=1, max_size=3))
        before = self._last_seq()
        for index, committed in zip(chosen, self.ingest.commit([self.batches[index] for index in chosen]), strict=True):
            self._check(self.batches[index], committed, before)
            if committed.error is None and self.batches[index].epoch == self.spool.epoch:
                self.acks.append((self.session, committed.last_seq))

    @precondition(lambda self: self.acks)
    @rule(data=st.data())
    def acknowledge(self, data: st.DataObject) -> None:
        """An acknowledgement arrives, perhaps late; those of an earlier session die with its connection."""
        session, seq = self.acks.pop(data.draw(st.integers(0, len(self.acks) - 1)))
        if session == self.session:
            self.delivery.acknowledge(seq)

    @rule()
    def catch_up(self) -> None:
        """Everything that was recorded arrives, in order, and is acknowledged."""
        while self._last_seq() < len(self.recorded):
            self._say_hello()
            self.send()
            for batch in [each for each in self.batches if each.first_seq > self._last_seq()]:
                self.ingest.commit([batch])
        self.delivery.acknowledge(self._last_seq())

    @rule()
    def reconnect(self) -> None:
        """The connection is lost; the next hello says how far the learner has come."""
        self._say_hello()

    @rule()
    def restart_actor(self) -> None:
        former = self.spool.epoch
        self.spool.close()
        self.spool = self._open_spool()
        assert self.spool.epoch > former
        assert self.spool.last_seq == len(self.recorded)
        self.delivery = Delivery(CONFIG, self.spool)
        self._say_hello()

    @rule()
    def restart_learner(self) -> None:
        self._stop_learner()
        self._start_learner()
        self._say_hello()

    @rule(ahead=st.integers(2, 5))
    def a_gap_is_refused(self, ahead: int) -> None:
        first = self._last_seq() + ahead
        [committed] = self.ingest.commit([self._batch(first, [encode_event(step("e-0", 0))])])
        assert isinstance(committed.error, Refused)
        assert f"Expected event {first - ahead + 1}" in str(committed.error)

    @rule()
    def seal_what_is_closed(self) -> None:
        self.sealer.run_once()
        assert not self.journal.closed_episodes()
        assert not self.journal.pending_labels()
        closed = self._closed_episodes()
        self._check_reader(closed)
        assert self.reader.num_episodes == len(closed)
        assert self.reader.episodes.outcome.tolist() == [self._label_of(episode_id) for episode_id in closed]
        layout = DatasetLayout(self.root / "replay")
        assert not contradicted_labels(layout, EpisodeMetadata(layout).read())

    @rule(place=st.sampled_from((*failpoints.SEAL, *failpoints.LABEL)))
    def die_while_sealing(self, place: str) -> None:
        """The learner seals until it gets to a failpoint, where it dies; it starts again."""

        def die(reached: str) -> None:
            if reached == place:
                raise Died(place)

        try:
            with patch.object(failpoints, "reached", die):
                self.sealer.run_once()
        except Died:
            self._check_reader(self._closed_episodes())
            self.restart_learner()

    @invariant()
    def nothing_is_lost(self) -> None:
        """Every event is with the learner or still in the spool; the learner never has more than was recorded."""
        if not hasattr(self, "journal"):
            return
        assert self.spool.acknowledged_seq <= self._last_seq() <= len(self.recorded)
        kept = [event for _, event in self.spool.pending(0, 10_000, 2**30)]
        assert kept == [encode_event(event) for event in self.recorded[self.spool.acknowledged_seq :]]

    @invariant()
    def everything_is_counted_once(self) -> None:
        if not hasattr(self, "journal"):
            return
        committed = self.recorded[: self._last_seq()]
        assert self.journal.counts().num_steps == sum(isinstance(event, StepRecorded) for event in committed)
        for episode_id in self.journal.closed_episodes():
            assert self.journal.read_episode(episode_id).steps == self._steps_of(episode_id)

    @rule(place=st.sampled_from(failpoints.LABEL[:2]))
    def take_a_correction_back(self, place: str) -> None:
        """The newest sealed episode is labelled otherwise; the learner dies in that, and is told the former label."""
        self.catch_up()
        self.seal_what_is_closed()
        if not self.reader.num_episodes:
            return
        episode_id = self.reader.episode_id(self.reader.num_episodes - 1)
        former = self._label_of(episode_id)
        other = Outcome.FAILURE if former == Outcome.SUCCESS else Outcome.SUCCESS
        for outcome in (other, former):
            self._append(EpisodeLabelled(episode_id, outcome, "human", float(len(self.recorded))))
            self.catch_up()
            if outcome == other:
                self.die_while_sealing(place)
        self.seal_what_is_closed()

    def _start_learner(self) -> None:
        self.journal = Journal(self.root / "journal", durability="os")
        self.ingest = Ingest(self.journal)
        writer = open_writer(self.root / "replay", SPEC, threading.Event())
        assert writer is not None
        self.writer = writer
        self.sealer = Sealer(self.journal, self.writer)

    def _stop_learner(self) -> None:
        self.writer.close()
        self.journal.close()

    def _check_reader(self, closed: list[str]) -> None:
        """A trainer that follows the dataset has the first of the closed episodes, each of their steps once."""
        self.reader.refresh()
        found = [self.reader.episode_id(episode) for episode in range(self.reader.num_episodes)]
        assert found == closed[: len(found)]
        steps = [step for episode_id in found for step in self._steps_of(episode_id)]
        assert [state.tobytes() for state in self.reader.steps.state] == [step.observation.state for step in steps]

    def _closed_episodes(self) -> list[str]:
        """Returns the committed episodes that ended with steps in them, in the order of their ends."""
        committed = self.recorded[: self._last_seq()]
        return [event.episode_id for event in committed if isinstance(event, EpisodeEnded) and event.num_steps]

    def _label_of(self, episode_id: str) -> Outcome:
        """Returns the newest committed label; an end without one takes none back."""
        found: Outcome | None = None
        for event in self.recorded[: self._last_seq()]:
            if isinstance(event, EpisodeLabelled | EpisodeEnded) and event.episode_id == episode_id:
                is_taken_back = found is None or event.outcome != Outcome.UNLABELLED
                found = event.outcome if is_taken_back or isinstance(event, EpisodeLabelled) else found
        assert found is not None
        return found

    def _append(self, event: Event) -> None:
        assert self.spool.append(event) == len(self.recorded) + 1
        self.recorded.append(event)

    def _steps_of(self, episode_id: str) -> list[StepRecorded]:
        steps = (event for event in self.recorded if isinstance(event, StepRecorded))
        return [each for each in steps if each.episode_id == episode_id]

    def _batch(self, first_seq: int, events: list[bytes]) -> StepBatch:
        return StepBatch(
            actor_id=ACTOR, epoch=self.spool.epoch, spool_id=self.spool.spool_id, first_seq=first_seq, events=events
        )

    def _check(self, batch: StepBatch, committed: Committed, before: int) -> None:
        if committed.error is None:
            assert committed.last_seq >= min(before, batch.first_seq + len(batch.events) - 1)
        elif batch.epoch < self.spool.epoch:
            assert isinstance(committed.error, SessionFenced)
        else:
            assert isinstance(committed.error, Refused)
            assert not isinstance(committed.error, ProtocolError)

    def _last_seq(self) -> int:
        return self.journal.cursors()[ACTOR].last_seq

    def _open_spool(self) -> Spool:
        return Spool(self.root / "spool", max_bytes=2**24)

    def _say_hello(self) -> None:
        self.session += 1
        hello = Hello(ACTOR, self.spool.epoch, SPEC.digest(), SPEC, self.spool.spool_id, self.spool.acknowledged_seq)
        self.delivery.restart(last_seq=self.ingest.admit(hello), num_credits=CONFIG.credits)


DeliveryStates.TestCase.settings = settings(
    max_examples=settings().max_examples // 5,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)
TestDelivery = DeliveryStates.TestCase
