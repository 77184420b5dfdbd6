from pathlib import Path

import pytest

pytest.importorskip("rerun")

from learner.replay.reader import ReplayDataset
from serl_launcher.datasets.writer import DatasetWriter
from tests.recorded_episodes import make_episode, robot
from tools.viz import log_episode


def test_an_episode_becomes_a_recording_for_the_viewer(tmp_path: Path):
    import rerun as rr

    spec, root = robot(), tmp_path / "dataset"
    DatasetWriter(root, spec).append(make_episode(spec, 0, 5))
    recording = rr.RecordingStream("test")
    recording.save(str(tmp_path / "episode.rrd"))
    assert log_episode(ReplayDataset(root), 0, recording) == 5
    recording.flush()
    assert (tmp_path / "episode.rrd").stat().st_size > 1000
