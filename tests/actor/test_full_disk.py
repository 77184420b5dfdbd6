"""An actor whose own disk is full holds still and goes on when there is room again."""

import contextlib
import resource
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from actor.spool import Spool
from serl_launcher.errors import SafetyError
from serl_launcher.types import Outcome
from tests.actor.recording import ended_in, steps_in
from tests.actor.test_rollout import Broken, rollout
from tests.actor.tiny_robot import PromptFollower, TinyRobot

ROOT_PAGES_BYTES = 16384


class Disk:
    """No file of this process may grow while it is full."""

    def __init__(self) -> None:
        self.limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(self) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (ROOT_PAGES_BYTES, self.limits[1]))

    def free(self) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, self.limits)


@pytest.fixture
def disk() -> Iterator[Disk]:
    with contextlib.closing(contextlib.ExitStack()) as stack:
        made = Disk()
        stack.callback(made.free)
        yield made


def test_the_episode_is_cut_off_and_recording_goes_on_when_there_is_room(
    spool: Spool, tmp_path: Path, disk: Disk, caplog: pytest.LogCaptureFixture
) -> None:
    robot = TinyRobot(max_steps=1000)
    playing = rollout(spool, tmp_path, policy=PromptFollower(), robot=robot)
    num_ticks = 0

    def fill_after_two_ticks() -> None:
        nonlocal num_ticks
        num_ticks += 1
        if num_ticks == 2:
            disk.fill()
            threading.Timer(0.7, disk.free).start()

    playing.run(num_episodes=2, after_episode=lambda _: None, on_tick=fill_after_two_ticks)

    assert "holds still" in caplog.text
    assert [ended.outcome for ended in ended_in(spool)] == [Outcome.ABORTED, Outcome.SUCCESS, Outcome.SUCCESS]
    assert ended_in(spool)[0].num_steps == 2
    assert sum(ended.num_steps for ended in ended_in(spool)) == len(steps_in(spool))
    assert spool.open_episodes() == []


def test_an_end_that_the_disk_refused_is_written_later_as_it_was(spool: Spool, tmp_path: Path, disk: Disk) -> None:
    playing = rollout(spool, tmp_path, policy=PromptFollower(), robot=TinyRobot(max_steps=2))
    num_ticks = 0

    def fill_at_the_last_tick() -> None:
        nonlocal num_ticks
        num_ticks += 1
        if num_ticks == 2:
            disk.fill()
            threading.Timer(0.7, disk.free).start()

    playing.run(num_episodes=1, after_episode=lambda _: None, on_tick=fill_at_the_last_tick)

    assert (ended_in(spool)[0].outcome, ended_in(spool)[0].num_steps) == (Outcome.FAILURE, 2)


def test_the_end_of_the_last_episode_is_written_when_the_disk_takes_it_again(
    spool: Spool, tmp_path: Path, disk: Disk, caplog: pytest.LogCaptureFixture
) -> None:
    playing = rollout(spool, tmp_path, policy=PromptFollower(), robot=TinyRobot(max_steps=1000))
    num_ticks = 0

    def fill_and_ask_to_stop() -> None:
        nonlocal num_ticks
        num_ticks += 1
        if num_ticks == 2:
            disk.fill()
            playing.clearance.request_stop()

    playing.run(num_episodes=1, after_episode=lambda _: None, on_tick=fill_and_ask_to_stop)
    assert [num_steps for _, num_steps in spool.open_episodes()] == [2]
    playing.write_refused_end(0.0)
    assert "has no end yet" in caplog.text
    threading.Timer(0.7, disk.free).start()
    playing.write_refused_end(10.0)
    assert spool.open_episodes() == []
    assert [ended.num_steps for ended in ended_in(spool)] == [2]


def test_a_full_disk_does_not_hide_a_fault(spool: Spool, tmp_path: Path, disk: Disk) -> None:
    playing = rollout(spool, tmp_path, policy=Broken(num_good=1))
    num_ticks = 0

    def fill_before_the_fault() -> None:
        nonlocal num_ticks
        num_ticks += 1
        if num_ticks == 3:
            disk.fill()

    with pytest.raises(SafetyError):
        playing.run(num_episodes=1, after_episode=lambda _: None, on_tick=fill_before_the_fault)
