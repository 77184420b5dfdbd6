import contextlib
import resource
import threading
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from learner.server import sealing
from learner.server.ingest import Ingest, StepBatch
from learner.server.sealing import Sealer
from serl_launcher.datasets.layout import DatasetLayout
from serl_launcher.datasets.writer import DatasetWriter
from serl_launcher.events import EpisodeEnded, EpisodeLabelled, EpisodeStarted, Event, encode_event
from serl_launcher.journal import EpisodeRecord, Journal
from serl_launcher.transport.messages import Hello
from serl_launcher.types import Outcome
from tests.recorded_episodes import make_episode, robot

SPEC = robot(size=8, cameras=1)


class Actor:
    """Feeds a journal as a connected actor does."""

    def __init__(self, journal: Journal) -> None:
        self.ingest = Ingest(journal)
        self.seq = 0
        hello = Hello(actor_id="a", epoch=1, spec_digest=SPEC.digest(), spec=SPEC, spool_id="spool", first_seq=0)
        self.seq = self.ingest.admit(hello)

    def send(self, *events: Event) -> None:
        batch = StepBatch(
            actor_id="a",
            epoch=1,
            spool_id="spool",
            first_seq=self.seq + 1,
            events=[encode_event(event) for event in events],
        )
        (committed,) = self.ingest.commit([batch])
        assert committed.error is None
        self.seq += len(events)

    def record(self, episode: EpisodeRecord) -> None:
        ended = EpisodeEnded(
            episode.episode_id, len(episode.steps), episode.final_observation, episode.outcome, "script", 1.0
        )
        started = EpisodeStarted(episode.episode_id, episode.prompt, 0.5, episode.seed)
        self.send(started, *episode.steps, ended)


@pytest.fixture
def journal(tmp_path: Path):
    opened = Journal(tmp_path / "journal", durability="os")
    yield opened
    opened.close()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "replay"


def label(number: int, outcome: Outcome) -> EpisodeLabelled:
    return EpisodeLabelled(f"a-1-{number}", outcome, "human", 9.0)


def test_closed_episodes_are_sealed_in_closing_order_and_open_ones_are_not(journal: Journal, root: Path) -> None:
    actor = Actor(journal)
    for number in (4, 2):
        actor.record(make_episode(SPEC, number, 3))
    unfinished = make_episode(SPEC, 7, 3)
    actor.send(EpisodeStarted(unfinished.episode_id, unfinished.prompt, 0.5), *unfinished.steps)
    writer = DatasetWriter(root, SPEC)

    assert Sealer(journal, writer).run_once() == 2

    assert (writer.index_of("a-1-4"), writer.index_of("a-1-2"), writer.index_of("a-1-7")) == (0, 1, None)
    assert journal.sealed_index("a-1-2") == 1
    assert journal.closed_episodes() == []


def test_an_episode_written_before_a_crash_is_not_written_again(journal: Journal, root: Path) -> None:
    Actor(journal).record(make_episode(SPEC, 0, 3))
    DatasetWriter(root, SPEC).append(journal.read_episode("a-1-0"))
    writer = DatasetWriter(root, SPEC)

    assert Sealer(journal, writer).run_once() == 1

    assert (writer.num_episodes, writer.num_steps) == (1, 3)
    assert journal.sealed_index("a-1-0") == 0


def test_a_label_that_came_between_the_crash_and_the_restart_counts(journal: Journal, root: Path) -> None:
    actor = Actor(journal)
    actor.record(make_episode(SPEC, 0, 3, outcome=Outcome.UNLABELLED))
    DatasetWriter(root, SPEC).append(journal.read_episode("a-1-0"))
    actor.send(label(0, Outcome.SUCCESS))
    writer = DatasetWriter(root, SPEC)

    Sealer(journal, writer).run_once()
    writer.close()

    assert writer.outcome_of("a-1-0") == Outcome.SUCCESS
    assert DatasetWriter(root, SPEC).outcome_of("a-1-0") == Outcome.SUCCESS


def test_a_late_label_is_applied_once(journal: Journal, root: Path) -> None:
    actor = Actor(journal)
    actor.record(make_episode(SPEC, 0, 3))
    writer = DatasetWriter(root, SPEC)
    sealer = Sealer(journal, writer)
    sealer.run_once()
    actor.send(label(0, Outcome.FAILURE))

    assert sealer.run_once() == 1
    assert sealer.run_once() == 0

    assert writer.outcome_of("a-1-0") == Outcome.FAILURE
    assert journal.pending_labels() == []


def test_a_label_of_a_pruned_episode_is_told_once_and_kept(
    journal: Journal, root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    actor = Actor(journal)
    actor.record(make_episode(SPEC, 0, 3))
    with contextlib.closing(DatasetWriter(root, SPEC)) as writer:
        Sealer(journal, writer).run_once()
    root.rename(root.with_name("before"))
    actor.send(label(0, Outcome.FAILURE))
    sealer = Sealer(journal, DatasetWriter(root, SPEC))
    assert [sealer.run_once(), sealer.run_once()] == [0, 0]
    assert caplog.text.count("not in the dataset any more") == 1
    assert sealer.num_failing == 0
    root.with_name("before").rename(root)
    assert Sealer(journal, DatasetWriter(root, SPEC)).run_once() == 1
    assert journal.pending_labels() == []


def store_unchecked(journal: Journal, record: EpisodeRecord) -> None:
    """Puts an episode into a journal as one that checked less had let it in."""
    started = EpisodeStarted(record.episode_id, record.prompt, 0.5, record.seed)
    ended = EpisodeEnded(
        record.episode_id, len(record.steps), record.final_observation, record.outcome, "script", 1.0
    )  # fmt: skip
    with journal.transaction() as changes:
        entry = changes.start_episode("a", 1, record.episode_id, encode_event(started))
        for seq, event in enumerate((*record.steps, ended), 2):
            changes.put_event(entry, seq, encode_event(event))
        changes.close_episode(record.episode_id, msgspec.structs.replace(entry, num_steps=len(record.steps)))


def without_a_picture(record: EpisodeRecord) -> None:
    whole = record.steps[0].observation.images["cam_0"]
    record.steps[0].observation.images["cam_0"] = whole[:-60]


def with_a_version_beyond_int64(record: EpisodeRecord) -> None:
    record.steps[0] = msgspec.structs.replace(record.steps[0], policy_version=2**63)


@pytest.mark.parametrize("damage", [without_a_picture, with_a_version_beyond_int64])
def test_an_episode_that_cannot_be_written_holds_up_no_other(
    journal: Journal, root: Path, damage: Callable[[EpisodeRecord], None], caplog: pytest.LogCaptureFixture
) -> None:
    damaged = make_episode(SPEC, 0, 3)
    damage(damaged)
    store_unchecked(journal, damaged)
    Actor(journal).record(make_episode(SPEC, 1, 3))
    writer = DatasetWriter(root, SPEC)
    sealer = Sealer(journal, writer)

    assert sealer.run_once() == 1

    assert writer.index_of("a-1-1") == 0
    assert sealer.num_failing == 1
    assert journal.closed_episodes() == ["a-1-0"]
    assert not DatasetLayout(root).data_file(1).exists()
    assert "next try in 30 s" in caplog.text


def test_an_episode_that_fails_again_is_tried_less_often(
    journal: Journal, root: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sealing, "RETRY_S", 0.1)
    damaged = make_episode(SPEC, 0, 3)
    without_a_picture(damaged)
    store_unchecked(journal, damaged)
    sealer = Sealer(journal, DatasetWriter(root, SPEC))
    deadline_s = time.monotonic() + 1.0
    while time.monotonic() < deadline_s:
        sealer.run_once()
        time.sleep(0.01)
    assert 2 <= len(caplog.records) <= 4


def test_a_full_disk_holds_up_every_episode_so_that_their_order_stays(
    journal: Journal, root: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sealing, "FULL_DISK_RETRY_S", 0.0)
    actor = Actor(journal)
    for number in range(3):
        actor.record(make_episode(SPEC, number, 3))
    writer = DatasetWriter(root, SPEC)
    sealer = Sealer(journal, writer)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        assert [sealer.run_once() for _ in range(3)] == [0, 0, 0]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert len([record for record in caplog.records if "Free disk space" in record.message]) == 1
    assert sealer.run_once() == 3
    assert [writer.index_of(f"a-1-{number}") for number in range(3)] == [0, 1, 2]
    assert not list(root.rglob("*.tmp"))


def test_stopping_seals_what_is_closed(journal: Journal, root: Path) -> None:
    Actor(journal).record(make_episode(SPEC, 0, 3))
    writer = DatasetWriter(root, SPEC)
    stop = threading.Event()
    stop.set()
    Sealer(journal, writer).run(stop)
    assert writer.num_episodes == 1
