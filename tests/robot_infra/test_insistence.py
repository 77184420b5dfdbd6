import threading
import time
from collections.abc import Callable

from robot_infra.insistence import Insistence
from serl_launcher.errors import RobotError


def wait_until(condition: Callable[[], object]) -> None:
    deadline_s = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline_s, "It did not come true in time."
        time.sleep(0.01)


def test_it_is_said_again_until_it_is_heard_and_nobody_waits_for_that():
    answers = [RobotError("busy"), RobotError("busy"), None]
    heard = threading.Event()

    def say() -> None:
        if (error := answers.pop(0)) is not None:
            raise error
        heard.set()

    insistence = Insistence("the stop", say)
    began_s = time.monotonic()
    insistence.begin()
    assert time.monotonic() - began_s < 0.15
    assert heard.wait(10)
    insistence.end()
    assert answers == []


def test_it_may_be_given_up_and_begun_again():
    num_said = 0

    def say() -> None:
        nonlocal num_said
        num_said += 1
        raise RobotError("nobody listens")

    insistence = Insistence("the stop", say)
    insistence.end()
    insistence.begin()
    insistence.begin()
    wait_until(lambda: num_said)
    insistence.end()
    before = num_said
    time.sleep(0.3)
    assert num_said == before
    insistence.begin()
    wait_until(lambda: num_said > before)
    insistence.end()


def test_what_is_begun_again_while_it_is_being_heard_is_said_once_more():
    is_saying, may_return, num_said = threading.Event(), threading.Event(), 0

    def say() -> None:
        nonlocal num_said
        num_said += 1
        is_saying.set()
        assert may_return.wait(10)

    insistence = Insistence("the stop", say)
    insistence.begin()
    assert is_saying.wait(10)
    insistence.begin()
    may_return.set()
    wait_until(lambda: num_said == 2)
    insistence.end()


def test_what_is_begun_again_while_its_end_is_waited_for_is_said():
    said: list[int] = []
    is_saying, may_return = threading.Event(), threading.Event()

    def say() -> None:
        said.append(len(said))
        is_saying.set()
        assert may_return.wait(10)

    insistence = Insistence("the stop", say)
    insistence.begin()
    assert is_saying.wait(10)
    insistence.end()
    insistence.begin()
    wait_until(lambda: said == [0, 1])
    may_return.set()
    insistence.end()


def test_the_end_may_wait_until_it_was_heard():
    heard = threading.Event()

    def say() -> None:
        time.sleep(0.1)
        heard.set()

    insistence = Insistence("the stop", say)
    insistence.begin()
    insistence.end(patience_s=10)
    assert heard.is_set()
