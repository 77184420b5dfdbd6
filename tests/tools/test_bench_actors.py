import json
import subprocess
import sys
from pathlib import Path

import pytest

from actor.timings import HELD
from tools.bench_actors import difference, measure, off_times_ms, played_steps
from tools.learner_and_actors import cpu_seconds_of, memory_of

ROWS = [
    {"episode": 0, "chunk_index": [0, 1, HELD, -1], "tick_ms": [100.0, 101.5, 99.0]},
    {"episode": 1, "chunk_index": [-1], "tick_ms": []},
]


@pytest.fixture
def timings(tmp_path: Path) -> Path:
    path = tmp_path / "timings.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


def test_held_ticks_are_not_expected_in_the_dataset(timings: Path):
    assert played_steps(timings, "a") == {("a", 0): 3, ("a", 1): 1}


def test_ticks_are_compared_with_the_rate(timings: Path):
    assert off_times_ms(timings, 0.1) == pytest.approx([0.0, 1.5, 1.0])


def test_a_lost_episode_a_lost_step_and_a_doubled_one_are_found():
    played = {("a", 0): 10, ("a", 1): 10, ("b", 0): 7}
    assert difference(played, played) == (0, 0)
    assert difference(played, {("a", 0): 10, ("a", 1): 9}) == (1 + 7, 0)
    assert difference(played, {**played, ("b", 0): 14, ("c", 5): 1}) == (0, 7 + 1)


def test_the_cost_of_a_process_includes_its_children():
    work = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'sum(range(2 * 10**7))\\ninput()'])"
    process = subprocess.Popen([sys.executable, "-c", work], stdin=subprocess.PIPE)
    try:
        while cpu_seconds_of(process.pid) < 0.2:
            assert process.poll() is None
        own = memory_of(process.pid)
        assert 1 < own.own < own.total
    finally:
        process.communicate(b"\n")


@pytest.mark.slow
def test_two_actors_lose_nothing(tmp_path: Path):
    found = measure(tmp_path, num_actors=2, seconds=5, overrides=["environment.image_size=[16,16]"])
    assert found.is_whole
    assert found.num_steps > 20
