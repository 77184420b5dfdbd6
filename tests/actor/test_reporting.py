import json
from pathlib import Path

import pytest

from actor import build
from actor.build import opened
from actor.progress import EpisodeSummary, Progress, Throttle
from actor.reporting import Reporter, figures_of_all
from serl_launcher.config.loader import load
from serl_launcher.types import Outcome
from tests.actor.free_ports import free_ports
from tests.actor.test_pacer import Clocked


class Learner:
    """Collects what it is told."""

    is_connected = True

    def __init__(self) -> None:
        self.told: list[dict] = []

    def send_stats(self, values: dict) -> None:
        self.told.append(values)


def reporter(tmp_path: Path, learner: Learner, *, period_s: float = 0.0) -> Reporter:
    lanes = [{"num_held_ticks": 2.0, "latency_ms_p99": 40.0}, {"num_held_ticks": 3.0, "latency_ms_p99": 90.0}]
    return Reporter(
        progress=Progress.load(tmp_path / "progress.json"),
        connection=learner,
        status_path=tmp_path / "status.json",
        num_unsent=lambda: 7,
        num_late_ticks=lambda: 5,
        figures=lambda: figures_of_all(lanes),
        _status_due=Throttle(period_s),
    )


def test_the_learner_is_told_while_an_episode_goes_on_and_not_at_every_tick(tmp_path: Path):
    learner = Learner()
    reporting = reporter(tmp_path, learner, period_s=60.0)
    for _ in range(100):
        reporting.on_tick()
    assert len(learner.told) == 1
    assert json.loads((tmp_path / "status.json").read_text())["num_unsent"] == 7


def test_the_end_of_an_episode_is_told_at_once(tmp_path: Path):
    learner = Learner()
    reporting = reporter(tmp_path, learner, period_s=60.0)
    reporting.on_tick()
    reporting.after_episode(
        EpisodeSummary(
            number=0, outcome=Outcome.SUCCESS, num_steps=3, num_human_steps=0, num_takeovers=0, policy_version=1,
            duration_s=1.0,
        )
    )  # fmt: skip
    assert len(learner.told) == 2


def test_all_lanes_are_in_the_figures(tmp_path: Path):
    learner = Learner()
    reporter(tmp_path, learner).on_tick()
    assert learner.told[0]["num_held_ticks"] == 5.0
    assert learner.told[0]["latency_ms_p99"] == 90.0
    assert learner.told[0]["num_late_ticks"] == 5


def test_a_figure_that_a_lane_does_not_have_yet_is_no_figure_of_it():
    assert figures_of_all([{}, {"latency_ms_p50": 3.0}]) == {"latency_ms_p50": 3.0}
    assert figures_of_all([]) == {}


def test_the_status_of_a_robot_that_keeps_its_own_time_counts_its_late_ticks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(build, "build_env", lambda config, beside: Clocked())
    request, broadcast = free_ports(2)
    ports = [f"transport.request_port={request}", f"transport.broadcast_port={broadcast}"]
    with opened(load([f"output_dir={tmp_path}", "actor.intervention.enabled=false", *ports])) as actor:
        actor.reporter.write()
    assert json.loads(actor.reporter.status_path.read_text())["num_late_ticks"] == 3
