"""Gamepad, SpaceMouse and keyboard through the kernel's own formats, written into pipes and a pseudo-terminal."""

import os
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from robot_infra.devices.gamepad import Gamepad
from robot_infra.devices.keyboard import Keyboard
from robot_infra.devices.spacemouse import SpaceMouse
from robot_infra.robots.dobot.emulator.line import EmulatedLine
from serl_launcher.errors import RobotError


@pytest.fixture
def pipe(tmp_path: Path) -> Iterator[tuple[str, int]]:
    """A device file and the end into which the device writes."""
    path = tmp_path / "device"
    os.mkfifo(path)
    device = os.open(path, os.O_RDWR)
    yield str(path), device
    os.close(device)


def wait_until(condition: Callable[[], object], *, timeout_s: float = 10.0) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s, "It did not come true in time."
        time.sleep(0.01)


def test_the_sticks_of_a_gamepad_are_axes(pipe: tuple[str, int]):
    path, device = pipe
    with closing(Gamepad(path)) as gamepad:
        os.write(device, struct.pack("<IhBB", 0, 0, 0x82, 1) + struct.pack("<IhBB", 5, -32767, 2, 1)[:5])
        os.write(device, struct.pack("<IhBB", 5, -32767, 2, 1)[5:])
        wait_until(lambda: gamepad.read().values.get("x") == 1.0)
        assert gamepad.read().is_active
        os.write(device, struct.pack("<IhBB", 6, 16384, 2, 3))
        wait_until(lambda: gamepad.read().values.get("yaw") == pytest.approx(-0.5, abs=1e-3))


def test_the_buttons_of_a_gamepad_close_and_open_the_gripper(pipe: tuple[str, int]):
    path, device = pipe
    with closing(Gamepad(path)) as gamepad:
        os.write(device, struct.pack("<IhBB", 0, 1, 1, 0))
        wait_until(lambda: gamepad.read().buttons == {0})
        assert gamepad.read().grip == 0.0
        os.write(device, struct.pack("<IhBB", 1, 0, 1, 0) + struct.pack("<IhBB", 2, 1, 1, 1))
        wait_until(lambda: gamepad.read().grip == 1.0)
        assert gamepad.read().buttons == {1}


def test_the_cap_of_a_spacemouse_has_six_axes(pipe: tuple[str, int]):
    path, device = pipe
    with closing(SpaceMouse(path)) as mouse:
        os.write(device, struct.pack("<B3h", 1, 0, -350, 175))
        wait_until(lambda: mouse.read().values.get("x") == 1.0)
        assert mouse.read().values["z"] == pytest.approx(-0.5)
        os.write(device, struct.pack("<B3h", 2, 0, 0, -700))
        wait_until(lambda: mouse.read().values.get("yaw") == 1.0)


def test_the_buttons_of_a_spacemouse_close_and_open_the_gripper(pipe: tuple[str, int]):
    path, device = pipe
    with closing(SpaceMouse(path)) as mouse:
        os.write(device, bytes([3, 1, 0, 0, 0]))
        wait_until(lambda: mouse.read().grip == 0.0)
        os.write(device, bytes([3, 2, 0, 0, 0]))
        wait_until(lambda: mouse.read().grip == 1.0)


@pytest.mark.parametrize(("device", "what"), [(Gamepad, "gamepad"), (SpaceMouse, "SpaceMouse")])
def test_a_device_that_is_missing_is_said_so_with_what_can_be_done_without(device: type, what: str):
    with pytest.raises(RobotError, match=rf"Expected a {what} at /dev/nothing.*Without it"):
        device("/dev/nothing")


def test_a_gamepad_that_is_unplugged_moves_nothing(tmp_path: Path):
    path = tmp_path / "device"
    os.mkfifo(path)
    keep = os.open(path, os.O_RDWR)
    with closing(Gamepad(str(path))) as gamepad:
        os.write(keep, struct.pack("<IhBB", 5, -32767, 2, 1))
        wait_until(lambda: gamepad.read().is_active)
        assert not gamepad.read().is_lost
        os.close(keep)
        wait_until(lambda: gamepad.read().is_lost)
        assert not gamepad.read().is_active


def test_a_spacemouse_that_is_unplugged_says_so(tmp_path: Path):
    path = tmp_path / "device"
    os.mkfifo(path)
    keep = os.open(path, os.O_RDWR)
    with closing(SpaceMouse(str(path))) as mouse:
        os.close(keep)
        wait_until(lambda: mouse.read().is_lost)


def test_a_terminal_that_is_gone_says_so():
    master, slave = os.openpty()
    with closing(Keyboard(os.ttyname(slave))) as keyboard:
        os.close(slave)
        assert not keyboard.read().is_lost
        os.close(master)
        wait_until(lambda: keyboard.read().is_lost)


@pytest.mark.parametrize("device", [Gamepad, SpaceMouse])
def test_what_the_gripper_was_told_before_a_takeover_counts_no_more(pipe: tuple[str, int], device: type):
    path, end = pipe
    press = struct.pack("<IhBB", 0, 1, 1, 0) if device is Gamepad else bytes([3, 1, 0, 0, 0])
    with closing(device(path)) as held:
        assert held.read().grip is None
        os.write(end, press)
        wait_until(lambda: held.read().grip == 0.0)
        held.begin(is_open=True)
        assert held.read().grip is None


def test_keys_reach_every_listener_and_count_as_held_for_a_moment():
    terminal = EmulatedLine(lambda received: (b"", len(received)))
    with closing(terminal), closing(Keyboard(terminal.path)) as keyboard:
        heard: list[str] = []
        keyboard.listen(heard.append)
        terminal.write(b"si")
        wait_until(lambda: heard == ["s", "i"])
        terminal.write(b"g")
        wait_until(lambda: keyboard.read().grip == 0.0)
        keyboard.begin(is_open=False)
        assert keyboard.read().grip is None
        terminal.write(b"g")
        wait_until(lambda: keyboard.read().grip == 1.0)
        time.sleep(0.25)
        assert not keyboard.read().is_active
        terminal.write(b"i")
        wait_until(lambda: keyboard.read().values == {"x": 1.0})


def test_without_a_terminal_the_missing_thing_is_named():
    with pytest.raises(RobotError, match=r"Expected a terminal at /dev/null.*actor\.devices\.keyboard"):
        Keyboard("/dev/null")
