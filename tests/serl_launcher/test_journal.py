import pytest

from learner.server.ingest import Ingest, StepBatch
from serl_launcher.errors import DatasetError
from serl_launcher.events import EpisodeLabelled, encode_event
from serl_launcher.journal import Journal
from serl_launcher.specs import RobotSpec
from serl_launcher.transport.messages import Hello
from serl_launcher.types import Outcome
from tests.transport_rig import SPEC, episode

LABEL = EpisodeLabelled("e-0", Outcome.FAILURE, "human", 9.0)


class Feed:
    """Commits events to a journal as the session of one actor."""

    def __init__(self, journal):
        self.ingest = Ingest(journal)
        self.seq = self.ingest.admit(Hello("actor-0", 1, SPEC.digest(), SPEC, "spool", 0))

    def __call__(self, *events):
        batch = StepBatch(
            actor_id="actor-0",
            epoch=1,
            spool_id="spool",
            first_seq=self.seq + 1,
            events=[encode_event(e) for e in events],
        )
        [committed] = self.ingest.commit([batch])
        assert committed.error is None
        self.seq = committed.last_seq


@pytest.fixture(name="journal")
def fixture_journal(tmp_path):
    journal = Journal(tmp_path / "journal")
    yield journal
    journal.close()


@pytest.fixture(name="feed")
def fixture_feed(journal):
    return Feed(journal)


def test_a_closed_episode_reads_as_it_was_recorded(journal, feed):
    recorded = episode("e-0", 3)
    feed(*recorded)
    record = journal.read_episode("e-0")
    assert record.steps == recorded[1:-1]
    assert record.final_observation == recorded[-1].final_observation
    assert (record.actor_id, record.prompt, record.seed, record.started_wall_time_s) == ("actor-0", "reach", 7, 1.0)
    assert (record.outcome, record.labelled_by, record.label_wall_time_s) == (Outcome.SUCCESS, "environment", 2.0)


def test_interleaved_episodes_are_kept_apart_and_queued_in_closing_order(journal, feed):
    first, second = episode("e-0", 2), episode("e-1", 1)
    feed(first[0], second[0], first[1], second[1], second[2], first[2], first[3])
    assert journal.closed_episodes() == ["e-1", "e-0"]
    assert journal.read_episode("e-0").steps == first[1:-1]
    assert journal.read_episode("e-1").steps == second[1:-1]


def test_an_open_episode_cannot_be_read_or_sealed(journal, feed):
    feed(*episode("e-0", 2)[:-1])
    assert journal.closed_episodes() == []
    with pytest.raises(DatasetError, match="is open"):
        journal.read_episode("e-0")
    with pytest.raises(DatasetError, match="closed episode"):
        journal.mark_sealed({"e-0": 0})


def test_an_episode_without_steps_has_nothing_to_seal(journal, feed):
    feed(*episode("e-0", 0, outcome=Outcome.ABORTED), LABEL)
    assert journal.closed_episodes() == []
    assert journal.pending_labels() == []
    assert journal.counts().num_episodes == 0


def test_a_sealed_episode_keeps_its_index_and_loses_its_events(journal, feed):
    feed(*episode("e-0", 2), *episode("e-1", 2))
    journal.mark_sealed({"e-0": 41})
    journal.mark_sealed({"e-0": 99})
    assert journal.closed_episodes() == ["e-1"]
    assert (journal.sealed_index("e-0"), journal.sealed_index("e-1"), journal.sealed_index("e-9")) == (41, None, None)
    assert journal.counts().num_sealed_episodes == 1
    with pytest.raises(DatasetError, match="is sealed"):
        journal.read_episode("e-0")
    assert len(journal.read_episode("e-1").steps) == 2


def test_the_newest_label_before_sealing_is_in_the_record(journal, feed):
    feed(*episode("e-0", 1), LABEL)
    record = journal.read_episode("e-0")
    assert (record.outcome, record.labelled_by, record.label_wall_time_s) == (Outcome.FAILURE, "human", 9.0)


def test_a_label_that_came_while_sealing_is_not_lost(journal, feed):
    feed(*episode("e-0", 1))
    journal.read_episode("e-0")
    feed(LABEL)
    assert journal.pending_labels() == []
    journal.mark_sealed({"e-0": 0})
    assert journal.pending_labels() == [("e-0", LABEL)]


def test_a_newer_label_survives_the_mark_of_an_older_one(journal, feed):
    feed(*episode("e-0", 1))
    journal.mark_sealed({"e-0": 0})
    feed(LABEL)
    newer = EpisodeLabelled("e-0", Outcome.SUCCESS, "human", 10.0)
    feed(newer)
    journal.mark_labelled("e-0", LABEL)
    assert journal.pending_labels() == [("e-0", newer)]
    journal.mark_labelled("e-0", newer)
    assert journal.pending_labels() == []


def test_everything_is_there_after_reopening(tmp_path):
    journal = Journal(tmp_path / "journal")
    feed = Feed(journal)
    feed(*episode("e-0", 2), *episode("e-1", 2)[:-1])
    before = (journal.counts(), journal.cursors(), journal.journal_id, journal.read_episode("e-0"))
    journal.close()
    journal = Journal(tmp_path / "journal")
    assert (journal.counts(), journal.cursors(), journal.journal_id, journal.read_episode("e-0")) == before
    assert isinstance(journal.spec(), RobotSpec)
    journal.close()


def test_a_second_process_is_kept_out(journal):
    with pytest.raises(DatasetError, match="uses it"):
        Journal(journal.path)


def test_counts_follow_what_was_committed(journal, feed):
    feed(*episode("e-0", 3), *episode("e-1", 4)[:-1])
    counts = journal.counts()
    assert (counts.num_started, counts.num_steps, counts.num_episodes, counts.num_sealed_episodes) == (2, 7, 1, 0)


def test_a_damaged_journal_is_refused_by_name(tmp_path):
    journal = Journal(tmp_path / "journal")
    Feed(journal)(*episode("e-0", 3))
    journal.close()
    store = tmp_path / "journal" / "data.mdb"
    store.write_bytes(store.read_bytes()[: 2 * 4096] + b"\xff" * (store.stat().st_size - 2 * 4096))
    with pytest.raises(DatasetError, match="move it away"):
        Journal(tmp_path / "journal")
