import socket
from pathlib import Path

import pytest

pytest.importorskip("rerun")

from learner.replay.reader import ReplayDataset
from serl_launcher.datasets.writer import DatasetWriter
from tests.actor.free_ports import free_ports
from tests.recorded_episodes import make_episode, robot
from tools.viz import follow, log_episode, main


def test_an_episode_becomes_a_recording_for_the_viewer(tmp_path: Path):
    import rerun as rr

    spec, root = robot(), tmp_path / "dataset"
    DatasetWriter(root, spec).append(make_episode(spec, 0, 5))
    recording = rr.RecordingStream("test")
    recording.save(str(tmp_path / "episode.rrd"))
    assert log_episode(ReplayDataset(root), 0, recording) == 5
    recording.flush()
    assert (tmp_path / "episode.rrd").stat().st_size > 1000


def test_distant_serves_the_episode_at_a_port_of_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    spec, root = robot(), tmp_path / "dataset"
    DatasetWriter(root, spec).append(make_episode(spec, 0, 5))
    [port] = free_ports(1)

    def connect_and_leave(seconds: float) -> None:
        socket.create_connection(("127.0.0.1", port), timeout=10).close()
        raise KeyboardInterrupt

    monkeypatch.setattr("tools.viz.time.sleep", connect_and_leave)
    monkeypatch.setattr("sys.argv", ["viz", str(root), "--mode", "distant", "--port", str(port)])
    main()
    said = capsys.readouterr().out
    assert f":{port}/proxy" in said
    assert "5 steps of episode 0" in said


def test_following_shows_what_is_recorded_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import rerun as rr

    spec, root = robot(), tmp_path / "dataset"
    writer = DatasetWriter(root, spec)
    writer.append(make_episode(spec, 0, 5))
    shown = []

    def log(dataset: ReplayDataset, episode: int, recording: rr.RecordingStream, *, below: str) -> int:
        shown.append((episode, below))
        if episode == 1:
            raise KeyboardInterrupt
        writer.append(make_episode(spec, 1, 4))
        return 5

    monkeypatch.setattr("tools.viz.log_episode", log)
    monkeypatch.setattr("tools.viz.FOLLOW_S", 0.01)
    with pytest.raises(KeyboardInterrupt):
        follow(ReplayDataset(root), 0, rr.RecordingStream("test"))
    assert shown == [(0, "episode_0000/"), (1, "episode_0001/")]
