import lmdb
import msgspec
import pytest

from learner.server.ingest import Ingest, StepBatch
from serl_launcher import journal as journal_module
from serl_launcher.errors import ProtocolError, Refused, SessionFenced, SpecMismatch
from serl_launcher.events import EpisodeLabelled, encode_event
from serl_launcher.journal import Journal
from serl_launcher.transport.messages import Hello
from serl_launcher.types import Outcome
from tests.transport_rig import OTHER_SPEC, SPEC, episode, step


@pytest.fixture(name="journal")
def fixture_journal(tmp_path):
    journal = Journal(tmp_path / "journal")
    yield journal
    journal.close()


@pytest.fixture(name="ingest")
def fixture_ingest(journal):
    return Ingest(journal)


def hello(actor_id="actor-0", *, epoch=1, spec=SPEC, spool_id="spool", first_seq=0):
    return Hello(actor_id, epoch, spec.digest(), spec, spool_id, first_seq)


def batch(first_seq, events, *, actor_id="actor-0", epoch=1, spool_id="spool"):
    encoded = [encode_event(event) for event in events]
    return StepBatch(actor_id=actor_id, epoch=epoch, spool_id=spool_id, first_seq=first_seq, events=encoded)


def test_a_batch_is_committed_up_to_its_last_event(ingest, journal):
    ingest.admit(hello())
    [committed] = ingest.commit([batch(1, episode("e-0", 2))])
    assert (committed.last_seq, committed.error) == (4, None)
    assert journal.closed_episodes() == ["e-0"]


def test_duplicates_are_acknowledged_again_and_stored_once(ingest, journal):
    ingest.admit(hello())
    events = episode("e-0", 3)
    ingest.commit([batch(1, events[:3])])
    results = ingest.commit([batch(1, events[:3]), batch(2, events[1:]), batch(1, events)])
    assert [result.last_seq for result in results] == [3, 5, 5]
    assert [result.error for result in results] == [None, None, None]
    assert journal.read_episode("e-0").steps == events[1:-1]
    assert journal.counts().num_steps == 3


def test_a_gap_is_refused_and_named(ingest, journal):
    ingest.admit(hello())
    events = episode("e-0", 3)
    results = ingest.commit([batch(1, events[:1]), batch(3, events[2:])])
    assert results[0].error is None
    assert isinstance(results[1].error, Refused)
    assert "Expected event 2" in str(results[1].error)
    assert journal.counts().num_steps == 0


def test_one_bad_batch_does_not_harm_the_others(ingest, journal):
    ingest.admit(hello())
    ingest.admit(hello("actor-1", spool_id="other"))
    bad = StepBatch(actor_id="actor-1", epoch=1, spool_id="other", first_seq=1, events=[b"nonsense"])
    good, refused = ingest.commit([batch(1, episode("e-0", 1)), bad])
    assert good.error is None
    assert isinstance(refused.error, ProtocolError)
    assert journal.closed_episodes() == ["e-0"]


@pytest.mark.parametrize(
    ("events", "reason"),
    [
        ([*episode("e-0", 1)[:1], step("e-0", 1)], "has 0 steps"),
        ([step("e-9", 0)], "known episode"),
        ([*episode("e-0", 1), *episode("e-0", 1)], "which exists"),
        ([*episode("e-0", 1), step("e-0", 1)], "open episode"),
        ([*episode("e-0", 1)[:2], msgspec.structs.replace(episode("e-0", 1)[2], num_steps=7)], "has 1 steps"),
        ([*episode("e-0", 1)[:1], msgspec.structs.replace(step("e-0", 0), action=b"\0")], "action"),
        ([*episode("e-0", 1)[:1], msgspec.structs.replace(step("e-0", 0), source=9)], "source"),
        (episode("", 1), "episode id"),
    ],
)
def test_events_out_of_place_are_refused_whole(ingest, journal, events, reason):
    ingest.admit(hello())
    [result] = ingest.commit([batch(1, events)])
    assert isinstance(result.error, ProtocolError)
    assert reason in str(result.error)
    assert journal.counts().num_started == 0


def test_an_older_epoch_is_fenced_also_with_events_under_way(ingest, journal):
    ingest.admit(hello(epoch=1))
    ingest.admit(hello(epoch=2))
    [result] = ingest.commit([batch(1, episode("e-0", 1), epoch=1)])
    assert isinstance(result.error, SessionFenced)
    assert journal.counts().num_started == 0
    with pytest.raises(SessionFenced, match="came after it"):
        ingest.admit(hello(epoch=1))


def test_a_session_goes_on_where_the_last_one_was_committed(ingest):
    ingest.admit(hello(epoch=1))
    events = episode("e-0", 2)
    ingest.commit([batch(1, events[:2])])
    assert ingest.admit(hello(epoch=2)) == 2
    assert ingest.commit([batch(3, events[2:], epoch=2)])[0].last_seq == 4


def test_another_robot_is_refused_with_both_sides_named(ingest):
    ingest.admit(hello())
    with pytest.raises(SpecMismatch, match=r"control_hz: learner 10\.0, actor 20\.0"):
        ingest.admit(hello("actor-1", spec=OTHER_SPEC))


def test_the_robot_is_remembered_across_restarts(tmp_path):
    journal = Journal(tmp_path / "journal")
    Ingest(journal).admit(hello())
    journal.close()
    journal = Journal(tmp_path / "journal")
    ingest = Ingest(journal)
    assert ingest.spec == SPEC
    with pytest.raises(SpecMismatch):
        ingest.require_spec(OTHER_SPEC, who="the configuration")
    journal.close()


def test_a_hello_with_a_wrong_digest_is_refused(ingest):
    with pytest.raises(ProtocolError, match="digest"):
        ingest.admit(Hello("actor-0", 1, "0" * 64, SPEC, "spool", 0))


def test_a_new_spool_begins_a_new_stream_and_aborts_what_the_old_one_left_open(ingest, journal):
    ingest.admit(hello(epoch=1))
    ingest.commit([batch(1, [*episode("e-0", 3)[:3], *episode("e-1", 3)[:1]])])
    assert ingest.admit(hello(epoch=2, spool_id="new disk")) == 0
    record = journal.read_episode("e-0")
    assert (record.outcome, len(record.steps)) == (Outcome.ABORTED, 2)
    assert record.final_observation == record.steps[-1].observation
    assert journal.closed_episodes() == ["e-0"]
    results = ingest.commit([batch(1, episode("e-2", 1), epoch=2, spool_id="new disk")])
    assert results[0].last_seq == 3
    assert journal.closed_episodes() == ["e-0", "e-2"]


def test_a_new_journal_takes_a_used_spool_and_counts_what_belongs_to_the_former(ingest, journal):
    assert ingest.admit(hello(first_seq=100)) == 100
    late = EpisodeLabelled("e-0", Outcome.FAILURE, "human", 1.0)
    [result] = ingest.commit([batch(101, [step("e-0", 5), late, *episode("e-1", 1)])])
    assert (result.last_seq, result.error) == (105, None)
    assert journal.closed_episodes() == ["e-1"]
    assert journal.counts().num_orphans == 2


def test_a_journal_that_is_older_than_the_spool_is_named(ingest):
    ingest.admit(hello(epoch=1))
    with pytest.raises(ProtocolError, match="older copy"):
        ingest.admit(hello(epoch=2, first_seq=50))


def test_a_label_for_an_unknown_episode_does_not_block_the_stream(ingest, journal):
    ingest.admit(hello())
    label = EpisodeLabelled("never recorded", Outcome.SUCCESS, "human", 1.0)
    [result] = ingest.commit([batch(1, [label, *episode("e-0", 1)])])
    assert (result.last_seq, result.error) == (4, None)
    assert journal.counts().num_orphans == 1


def test_two_actors_that_take_turns_under_one_id_are_both_delivered(ingest, journal):
    """The disk of a robot is changed and put back: what lies on either arrives, once."""
    first, second = episode("a-0", 3), episode("b-0", 2)
    ingest.admit(hello(epoch=1, spool_id="a"))
    ingest.commit([batch(1, first[:3], epoch=1, spool_id="a")])
    assert ingest.admit(hello(epoch=2, spool_id="b")) == 0
    assert ingest.commit([batch(1, second, epoch=2, spool_id="b")])[0].last_seq == 4
    assert ingest.admit(hello(epoch=3, spool_id="a", first_seq=2)) == 3
    rest = [*first[3:], *episode("a-1", 1)]
    [result] = ingest.commit([batch(4, rest, epoch=3, spool_id="a")])
    assert (result.last_seq, result.error) == (8, None)
    assert journal.closed_episodes() == ["a-0", "b-0", "a-1"]
    assert len(journal.read_episode("a-0").steps) == 2
    assert journal.counts().num_orphans == 2
    assert ingest.admit(hello(epoch=4, spool_id="b")) == 4
    assert journal.cursors()["actor-0"].num_episodes == 2


def test_an_episode_without_steps_is_whole_when_its_spool_comes_back(ingest, journal):
    events = episode("a-0", 2)
    ingest.admit(hello(epoch=1, spool_id="a"))
    ingest.commit([batch(1, events[:1], epoch=1, spool_id="a")])
    ingest.admit(hello(epoch=2, spool_id="b"))
    assert ingest.admit(hello(epoch=3, spool_id="a")) == 1
    ingest.commit([batch(2, events[1:], epoch=3, spool_id="a")])
    assert journal.read_episode("a-0").steps == events[1:-1]
    assert journal.counts().num_orphans == 0


def test_a_spool_that_an_older_journal_forgot_is_delivered_from_where_it_is(tmp_path):
    """Journals of former versions have one cursor per actor; the one of the spool before is gone."""
    journal = Journal(tmp_path / "journal")
    ingest = Ingest(journal)
    first = episode("a-0", 3)
    ingest.admit(hello(epoch=1, spool_id="a"))
    ingest.commit([batch(1, first[:3], epoch=1, spool_id="a")])
    ingest.admit(hello(epoch=2, spool_id="b"))
    with journal._store.begin(write=True) as transaction:
        transaction.drop(journal._db["spools"])
        entry = msgspec.msgpack.decode(transaction.get(b"a-0", db=journal._db["episodes"]))
        del entry["is_cut_off"]
        transaction.put(b"a-0", msgspec.msgpack.encode(entry), db=journal._db["episodes"])
    journal.close()
    journal = Journal(tmp_path / "journal")
    ingest = Ingest(journal)
    assert ingest.admit(hello(epoch=3, spool_id="a", first_seq=3)) == 3
    [result] = ingest.commit([batch(4, [*first[3:], *episode("a-1", 1)], epoch=3, spool_id="a")])
    assert (result.last_seq, result.error) == (8, None)
    assert journal.closed_episodes() == ["a-0", "a-1"]
    journal.close()


def test_an_actor_cannot_touch_the_episodes_of_another(ingest, journal, caplog):
    ingest.admit(hello("actor-0"))
    ingest.admit(hello("actor-1", spool_id="other"))
    ingest.commit([batch(1, episode("e-0", 2)[:2])])
    foreign = [
        EpisodeLabelled("e-0", Outcome.FAILURE, "human", 9.0), step("e-0", 1), episode("e-0", 0)[0],
        *episode("e-1", 1),
    ]  # fmt: skip
    [result] = ingest.commit([batch(1, foreign, actor_id="actor-1", spool_id="other")])
    assert (result.last_seq, result.error) == (6, None)
    assert journal.counts().num_orphans == 3
    assert "an episode of 'actor-0'" in caplog.text
    ingest.commit([batch(3, episode("e-0", 2)[2:])])
    assert journal.read_episode("e-0").outcome is Outcome.SUCCESS
    assert journal.closed_episodes() == ["e-1", "e-0"]


def test_a_hello_and_the_batches_before_it_are_committed_in_order(ingest):
    events = episode("e-0", 2)
    ingest.admit(hello(epoch=1))
    results = ingest.commit([batch(1, events[:2]), hello(epoch=2), batch(3, events[2:]), batch(3, events[2:], epoch=2)])
    assert [result.last_seq for result in results] == [2, 2, 0, 4]
    assert isinstance(results[2].error, SessionFenced)


@pytest.mark.parametrize("num_in_batch", [1, 7, 30])
def test_a_full_journal_can_still_seal_what_makes_room(tmp_path, monkeypatch, num_in_batch):
    monkeypatch.setattr(journal_module, "_MAP_BYTES", 2**22)
    full = Journal(tmp_path / "journal")
    ingest = Ingest(full)
    ingest.admit(hello())
    events = [event for number in range(60) for event in episode(f"e-{number}", 200)]
    num_refused = num_sealed = 0
    for start in range(0, len(events), num_in_batch):
        group = [batch(start + 1, events[start : start + num_in_batch])]
        try:
            [committed] = ingest.commit(group)
        except lmdb.MapFullError:
            num_refused += 1
            closed = full.closed_episodes()
            full.mark_sealed({episode_id: num_sealed + place for place, episode_id in enumerate(closed)})
            num_sealed += len(closed)
            [committed] = ingest.commit(group)
        assert (committed.error, committed.last_seq) == (None, min(start + num_in_batch, len(events)))
    assert num_refused > 2
    assert full.counts().num_steps == 12_000
    full.close()
