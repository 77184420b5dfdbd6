from pathlib import Path

import numpy as np
import pytest

from tools.bench_memory import Sample, draw, growth_of, main, sample_actor

HOURS = np.linspace(0, 2, 201)


def test_the_growth_of_a_leak_is_its_slope():
    growth = growth_of(HOURS, 50 + 3 * HOURS)
    assert growth.mib_per_hour == pytest.approx(3)
    assert growth.mib == pytest.approx(54.5)
    assert growth.percent_per_hour == pytest.approx(100 * 3 / 54.5)


def test_what_is_allocated_at_the_start_is_no_growth():
    growth = growth_of(HOURS, np.where(HOURS < 0.5, 40, 60))
    assert growth.mib_per_hour == pytest.approx(0, abs=1e-9)


def test_the_samples_become_a_picture(tmp_path: Path):
    samples = [Sample(robot_hours=hour, total=80, own=50, files=30) for hour in HOURS]
    draw(samples, tmp_path / "memory.png")
    assert (tmp_path / "memory.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_the_memory_of_a_real_actor_is_sampled(tmp_path: Path):
    samples = sample_actor(tmp_path, hours=0.03, overrides=["environment.image_size=[16,16]"], tell=False)
    assert samples[-1].robot_hours >= 0.03
    assert all(10 < sample.own < sample.total < 1000 for sample in samples)


def test_an_unknown_argument_ends_the_command(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("sys.argv", ["bench_memory", "--ours", "2"])
    with pytest.raises(SystemExit):
        main()
