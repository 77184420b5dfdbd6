import threading
import time
from dataclasses import dataclass

import pytest

from actor.clearance import Clearance
from serl_launcher.errors import DeadlineExceeded, SessionFenced


@dataclass
class Announced:
    stop: bool = False
    paused: bool = False


@dataclass
class Heard:
    announcement: Announced | None = None
    last_error: Exception | None = None


@dataclass
class Disk:
    is_full: bool = False


def clearance(heard: Heard | None = None, disk: Disk | None = None) -> Clearance:
    return Clearance(learner=heard or Heard(), room=disk or Disk(), poll_s=0.01)


def wait_in_background(waiting: Clearance) -> tuple[threading.Thread, list[bool]]:
    answers: list[bool] = []
    thread = threading.Thread(target=lambda: answers.append(waiting.wait_for_next_episode()))
    thread.start()
    time.sleep(0.05)
    return thread, answers


def test_a_learner_that_was_never_heard_does_not_stop_anybody():
    assert clearance().wait_for_next_episode()


def test_a_stop_may_come_from_the_learner():
    assert clearance(Heard(Announced(stop=True))).is_stopping()


def test_a_stop_may_come_from_a_person():
    asked = clearance()
    asked.request_stop()
    assert asked.is_stopping()
    assert not asked.wait_for_next_episode()


def test_a_pause_delays_the_next_episode_until_it_is_lifted():
    heard = Heard(Announced(paused=True))
    thread, answers = wait_in_background(clearance(heard))
    assert answers == []
    heard.announcement = Announced()
    thread.join(timeout=2)
    assert answers == [True]


def test_a_full_spool_delays_the_next_episode_until_there_is_room():
    disk = Disk(is_full=True)
    thread, answers = wait_in_background(clearance(disk=disk))
    assert answers == []
    disk.is_full = False
    thread.join(timeout=2)
    assert answers == [True]


def test_a_stop_ends_a_pause():
    paused = clearance(Heard(Announced(paused=True)))
    thread, answers = wait_in_background(paused)
    paused.request_stop()
    thread.join(timeout=2)
    assert answers == [False]


def test_a_learner_that_refuses_this_actor_is_an_error():
    with pytest.raises(SessionFenced):
        clearance(Heard(last_error=SessionFenced("another actor has this id"))).is_stopping()


def test_a_network_error_is_no_reason_to_stop():
    assert not clearance(Heard(last_error=DeadlineExceeded("away"))).is_stopping()
