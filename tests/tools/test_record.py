from pathlib import Path

import pytest

from learner.replay.reader import ReplayDataset
from tools.record import num_stored, record


@pytest.mark.slow
def test_one_command_records_and_a_second_one_adds_to_it(tmp_path: Path):
    settings = [f"output_dir={tmp_path}", "unique_identifier=cups", "environment.realtime_factor=0"]
    dataset, num_episodes = record(settings, num_episodes=2)
    assert (dataset, num_episodes) == (tmp_path / "cups" / "replay_buffer", 2)
    assert record(settings, num_episodes=1) == (dataset, 3)
    assert set(ReplayDataset(dataset).episodes.outcome) == {"success"}


def test_nothing_is_stored_where_there_is_nothing(tmp_path: Path):
    assert num_stored(tmp_path / "none") == 0
