"""The statistics tool against numpy over all values, and against what the trainer computes for itself."""

from pathlib import Path

import numpy as np
import pytest

from learner.replay.reader import ReplayDataset
from learner.replay.statistics import norm_stats as trainers_norm_stats
from serl_launcher.datasets.layout import DatasetLayout
from serl_launcher.datasets.writer import DatasetWriter
from serl_launcher.policies.exact_statistics import ExactStatistics
from serl_launcher.policies.normalization import read_norm_stats
from tests.recorded_episodes import make_episode, robot
from tools import norm_stats as tool

SPEC = robot(size=8, cameras=1)
LENGTHS = (7, 3, 12)


@pytest.fixture(name="root")
def fixture_root(tmp_path: Path) -> Path:
    writer = DatasetWriter(tmp_path, SPEC)
    for number, length in enumerate(LENGTHS):
        writer.append(make_episode(SPEC, number, length))
    return tmp_path


@pytest.mark.parametrize("weighted", [False, True])
def test_radix_selection_equals_numpy(weighted):
    rng = np.random.default_rng(1)
    rows = np.concatenate([rng.normal(3, 2, (5000, 4)), rng.choice([-1.0, 0.0, 2.5], (3000, 4))]).astype(np.float32)
    rows[:, 3] = 7.0
    weights = rng.integers(1, 50, len(rows)) if weighted else None
    statistics = ExactStatistics(4)
    for is_first in (True, False):
        for part in np.array_split(np.arange(len(rows)), 7):
            statistics.add(rows[part], None if weights is None else weights[part])
        if is_first:
            statistics.next_pass()
    stats = statistics.result()
    every = (rows if weights is None else np.repeat(rows, weights, axis=0)).astype(np.float64)
    low, high = np.quantile(every, [0.01, 0.99], axis=0)
    np.testing.assert_allclose(stats.mean, every.mean(0), rtol=1e-12)
    np.testing.assert_allclose(stats.std, every.std(0), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(stats.q01, low, rtol=1e-12)
    np.testing.assert_allclose(stats.q99, high, rtol=1e-12)


@pytest.mark.parametrize("size", [1, 2, 3, 101])
def test_few_rows_have_numpys_quantiles(size):
    rows = np.random.default_rng(size).normal(size=(size, 2)).astype(np.float32)
    statistics = ExactStatistics(2)
    statistics.add(rows)
    statistics.next_pass()
    statistics.add(rows)
    low, high = np.quantile(rows.astype(np.float64), [0.01, 0.99], axis=0)
    np.testing.assert_allclose(statistics.result().q01, low, rtol=1e-12)
    np.testing.assert_allclose(statistics.result().q99, high, rtol=1e-12)


def test_a_forgotten_second_pass_is_an_error():
    statistics = ExactStatistics(2)
    with pytest.raises(ValueError, match="at least one row"):
        statistics.next_pass()
    statistics.add(np.ones((3, 2), np.float32))
    statistics.next_pass()
    with pytest.raises(ValueError, match="twice"):
        statistics.result()


@pytest.mark.parametrize("relative", [False, True])
@pytest.mark.parametrize("horizon", [1, 5, 50])
def test_the_tool_counts_what_the_trainer_counts(root, horizon, relative, monkeypatch):
    # Several blocks; either kept or read twice.
    monkeypatch.setattr(tool, "BLOCK_STEPS", 8)
    monkeypatch.setattr(tool, "KEPT_BYTES", 1 << 20 if relative else 1)
    mask = np.arange(SPEC.action_dim) % 2 == 0 if relative else None
    stats, num_steps = tool.norm_stats(root, horizon, mask)
    assert num_steps == sum(LENGTHS)
    for key, theirs in trainers_norm_stats([ReplayDataset(root)], horizon, mask).items():
        for name, numbers in theirs.items():
            np.testing.assert_allclose(
                getattr(stats[key], name), numbers, rtol=1e-5, atol=1e-6, err_msg=f"{key} {name}"
            )


def test_the_file_is_openpis_and_no_image_is_read(root, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("serl_launcher.images.decode_image", None)
    output = tmp_path / "assets" / "toy" / "norm_stats.json"
    assert tool.main([str(root), "--output", str(output), "--horizon", "4"]) == 0
    stats = read_norm_stats(output)
    assert len(stats["state"].mean) == SPEC.state_dim
    assert stats == tool.norm_stats(root, 4)[0]
    assert "frames/s" in capsys.readouterr().out


def test_joints_that_hardly_move_are_named(root, capsys):
    assert tool.main([str(root), "--horizon", "1"]) == 0
    said = capsys.readouterr().out
    state = np.concatenate([block.state for block in tool.blocks(root)])
    still = np.flatnonzero(state.std(0) < tool.LEAST_SPREAD).tolist()
    assert (f"state: dimensions {still} hardly move" in said) == bool(still)


def test_a_directory_without_steps_is_an_error(tmp_path, capsys):
    assert tool.main([str(tmp_path)]) == 1
    assert "info.json" in capsys.readouterr().err


def test_a_damaged_file_is_named(root, capsys):
    DatasetLayout(root).data_file(1).write_bytes(b"no parquet")
    assert tool.main([str(root)]) == 1
    assert "file-001.parquet" in capsys.readouterr().err
