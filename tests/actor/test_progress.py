from pathlib import Path

import pytest

from actor.progress import EpisodeSummary, Progress, Throttle, describe
from serl_launcher.types import Outcome


def episode(number: int, outcome: Outcome = Outcome.SUCCESS, *, human: int = 0) -> EpisodeSummary:
    return EpisodeSummary(
        number=number, outcome=outcome, num_steps=10, num_human_steps=human, num_takeovers=int(human > 0),
        policy_version=5, duration_s=2.0,
    )  # fmt: skip


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "spool" / "actor-0.progress.json"


def test_numbers_are_given_out_once_even_when_the_episode_never_ends(path: Path):
    assert Progress.load(path).next_number() == 0
    assert Progress.load(path).next_number() == 1


def test_a_restarted_actor_remembers_its_episodes(path: Path):
    before = Progress.load(path)
    before.finish(episode(0))
    before.finish(episode(1, Outcome.FAILURE))
    after = Progress.load(path)
    assert (after.num_finished, after.num_steps, after.success_rate()) == (2, 20, 0.5)


def test_an_aborted_episode_is_not_finished(path: Path):
    progress = Progress.load(path)
    progress.finish(episode(0, Outcome.ABORTED))
    assert (progress.num_finished, progress.num_steps, len(progress.recent)) == (0, 10, 0)


def test_rates_look_at_the_last_episodes_only(path: Path):
    progress = Progress.load(path)
    for number in range(30):
        progress.finish(
            episode(number, Outcome.FAILURE if number < 10 else Outcome.SUCCESS, human=5 if number < 10 else 1)
        )
    assert progress.success_rate(20) == 1.0
    assert progress.success_rate(50) == pytest.approx(2 / 3)
    assert progress.intervention_rate(20) == pytest.approx(0.1)
    assert progress.takeover_rate(20) == 1.0
    assert progress.steps_per_s() == pytest.approx(5.0)


def test_count_and_duration_of_interventions_are_told(path: Path):
    progress = Progress.load(path)
    for human in (0, 5, 10):
        progress.finish(episode(human, human=human))
    values = progress.values()
    # Episodes of 2 s, of which none, half and all were driven by the person.
    assert values["human_s_20"] == pytest.approx(3.0)
    assert (values["num_takeovers_20"], values["num_human_steps_20"]) == (2, 15)


def test_before_the_first_episode_all_rates_are_zero(path: Path):
    values = Progress.load(path).values()
    assert (values["success_rate_20"], values["intervention_rate_20"], values["steps_per_s"]) == (0, 0, 0)
    assert values["policy_version"] == -1


def test_a_damaged_file_starts_a_new_count(path: Path, caplog: pytest.LogCaptureFixture):
    Progress.load(path).next_number()
    path.write_bytes(b"{")
    assert Progress.load(path).next_number() == 0
    assert "damaged" in caplog.text


def test_the_story_is_one_line(path: Path):
    progress = Progress.load(path)
    assert describe(progress) == "No episode finished yet."
    progress.finish(episode(3, human=4))
    assert describe(progress) == (
        "Episode 3: success in 10 steps, 4 by the person. Last 1: 100% success, 40% of steps by the person. "
        "Policy 5, 5 steps/s."
    )


def test_a_throttle_opens_once_per_period():
    throttle = Throttle(60.0)
    assert [throttle.is_due(), throttle.is_due()] == [True, False]
