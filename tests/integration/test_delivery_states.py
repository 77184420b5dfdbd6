"""Sender, receiver and journal as one state machine: whatever is sent, doubled, dropped, delayed or restarted, each
event enters the journal once and in order."""

import os
import shutil
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from actor.spool import Spool
from learner.server.ingest import Committed, Ingest, StepBatch
from serl_launcher.config.transport import TransportConfig
from serl_launcher.errors import ProtocolError, Refused, SessionFenced
from serl_launcher.events import EpisodeEnded, EpisodeLabelled, EpisodeStarted, Event, StepRecorded, encode_event
from serl_launcher.journal import Journal
from serl_launcher.transport.delivery import Delivery
from serl_launcher.transport.messages import Hello
from serl_launcher.types import Outcome
from tests.transport_rig import SPEC, encoded, step

CONFIG = TransportConfig(max_batch_events=3, credits=2, durability="os")
ACTOR = "actor-0"


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

    @initialize()
    def start(self) -> None:
        self.spool = self._open_spool()
        self.delivery = Delivery(CONFIG, self.spool)
        self.journal = Journal(self.root / "journal", durability="os")
        self.ingest = Ingest(self.journal)
        self._say_hello()

    def teardown(self) -> None:
        self.spool.close()
        self.journal.close()
        shutil.rmtree(self.root)

    @rule(kind=st.sampled_from(["step", "step", "step", "end", "label"]))
    def record(self, kind: str) -> None:
        if kind == "label" and self.num_episodes:
            name = f"e-{self.num_episodes - 1}"
            self._append(EpisodeLabelled(name, Outcome.FAILURE, "human", float(len(self.recorded))))
        elif self.open_episode is None:
            self.open_episode = (f"e-{self.num_episodes}", 0)
            self.num_episodes += 1
            self._append(EpisodeStarted(self.open_episode[0], "reach", 1.0))
        elif kind == "end":
            name, num_steps = self.open_episode
            self._append(EpisodeEnded(name, num_steps, encoded(), Outcome.SUCCESS, "human", 1.0))
            self.open_episode = None
        else:
            name, num_steps = self.open_episode
            self._append(step(name, num_steps, value=len(self.recorded)))
            self.open_episode = (name, num_steps + 1)

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
        self.journal.close()
        self.journal = Journal(self.root / "journal", durability="os")
        self.ingest = Ingest(self.journal)
        self._say_hello()

    @rule(ahead=st.integers(2, 5))
    def a_gap_is_refused(self, ahead: int) -> None:
        first = self._last_seq() + ahead
        [committed] = self.ingest.commit([self._batch(first, [encode_event(step("e-0", 0))])])
        assert isinstance(committed.error, Refused)
        assert f"Expected event {first - ahead + 1}" in str(committed.error)

    @rule()
    def seal_what_is_closed(self) -> None:
        for episode_id in self.journal.closed_episodes():
            record = self.journal.read_episode(episode_id)
            assert record.steps == self._steps_of(episode_id)
            self.journal.mark_sealed({episode_id: int(episode_id.split("-")[1])})

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
    max_examples=20,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)
TestDelivery = DeliveryStates.TestCase
