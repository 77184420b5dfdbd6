import json
from contextlib import closing

import pytest

from learner.replay.reader import ReplayDataset
from learner.replica.stream import ReplayStream
from serl_launcher.datasets.writer import DatasetWriter
from serl_launcher.errors import DatasetError, SessionFenced
from serl_launcher.events import EpisodeEnded, EpisodeLabelled, EpisodeStarted, StepRecorded, decode_event
from serl_launcher.types import Outcome
from tests.recorded_episodes import make_episode, robot

SPEC = robot(size=16)


@pytest.fixture(name="writer")
def fixture_writer(tmp_path):
    writer = DatasetWriter(tmp_path / "replay", SPEC)
    writer.append(make_episode(SPEC, 0, 3))
    writer.append(make_episode(SPEC, 1, 2, outcome=Outcome.UNLABELLED))
    return writer


def open_stream(tmp_path):
    return ReplayStream(ReplayDataset(tmp_path / "replay"), SPEC, tmp_path / "log")


def events(stream, after=0, *, at_once=1000, max_bytes=10**9):
    found = []
    while batch := stream.pending(after + len(found), at_once, max_bytes):
        assert [seq for seq, _ in batch] == list(range(after + len(found) + 1, after + len(found) + 1 + len(batch)))
        found += [event for _, event in batch]
    return found


def label(writer, number, outcome):
    writer.relabel(f"a-1-{number}", EpisodeLabelled(f"a-1-{number}", outcome, "human", 9.0))


def test_episodes_come_in_order_with_all_their_events(tmp_path, writer):
    with closing(open_stream(tmp_path)) as stream:
        assert (stream.last_seq, stream.follow(), stream.last_seq) == (0, 2, 9)
        decoded = [decode_event(each) for each in events(stream)]
    kinds = [type(each) for each in decoded]
    assert kinds == [
        EpisodeStarted, *[StepRecorded] * 3, EpisodeEnded, EpisodeStarted, *[StepRecorded] * 2, EpisodeEnded
    ]  # fmt: skip
    assert [each.episode_id for each in decoded] == ["a-1-0"] * 5 + ["a-1-1"] * 4
    assert decoded[4].final_observation == make_episode(SPEC, 0, 3).final_observation


def test_any_cut_of_the_stream_gives_the_same_events(tmp_path, writer):
    with closing(open_stream(tmp_path)) as stream:
        stream.follow()
        whole = events(stream)
        for after in range(len(whole) + 1):
            assert events(stream, after, at_once=2) == whole[after:]
        assert events(stream, max_bytes=1) == whole


def test_a_later_label_is_an_event_of_its_own_and_changes_nothing_before(tmp_path, writer):
    with closing(open_stream(tmp_path)) as stream:
        stream.follow()
        before = events(stream)
        label(writer, 1, Outcome.SUCCESS)
        assert stream.follow() == 1
        [late] = events(stream, 9)
        assert decode_event(late).outcome == Outcome.SUCCESS
        again = [decode_event(each) for each in events(stream)[:9]]
        assert again[8].outcome == Outcome.UNLABELLED
        assert [decode_event(each) for each in before][:8] == again[:8]
        assert stream.follow() == 0


def test_the_order_survives_a_restart_in_a_new_epoch(tmp_path, writer):
    with closing(open_stream(tmp_path)) as stream:
        stream.follow()
        label(writer, 0, Outcome.FAILURE)
        stream.follow()
        writer.append(make_episode(SPEC, 2, 2))
        stream.follow()
        before, name = events(stream), (stream.spool_id, stream.epoch)
    with closing(open_stream(tmp_path)) as stream:
        assert stream.follow() == 0
        assert events(stream) == before
        assert (stream.spool_id, stream.epoch) == (name[0], 2)


def test_an_unfinished_line_counts_as_never_written(tmp_path, writer):
    with closing(open_stream(tmp_path)) as stream:
        stream.follow()
        before = events(stream)
    log = tmp_path / "log" / "stream.jsonl"
    log.write_bytes(log.read_bytes()[:-20])
    with closing(open_stream(tmp_path)) as stream:
        assert stream.last_seq == 5
        assert stream.follow() == 1
        assert events(stream) == before


def test_two_streams_do_not_share_a_log(tmp_path, writer):
    with closing(open_stream(tmp_path)), pytest.raises(SessionFenced):
        open_stream(tmp_path)


def test_a_log_of_another_replay_is_refused(tmp_path, writer):
    with closing(open_stream(tmp_path)) as stream:
        stream.follow()
    log = tmp_path / "log" / "stream.jsonl"
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    lines[1]["id"] = "b-7-0"
    log.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(DatasetError, match="another replay"):
        open_stream(tmp_path)


def test_progress_is_counted_in_whole_episodes(tmp_path, writer):
    with closing(open_stream(tmp_path)) as stream:
        stream.follow()
        counts = []
        for seq in (4, 5, 8, 9):
            stream.acknowledge(seq)
            counts.append((stream.num_delivered_episodes, stream.num_pending))
    assert counts == [(0, 5), (1, 4), (1, 1), (2, 0)]
