import contextlib
import struct
from collections.abc import Iterator
from contextlib import closing

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robot_infra.devices import dynamixel, feetech
from robot_infra.devices.dynamixel import DynamixelBus
from robot_infra.devices.feetech import FeetechGripper
from robot_infra.devices.serial_line import SerialLine
from robot_infra.robots.dobot.emulator.line import EmulatedLine
from robot_infra.robots.dobot.emulator.servos import EmulatedGripper, EmulatedLeader
from serl_launcher.errors import RobotError


@pytest.fixture
def gripper() -> Iterator[EmulatedGripper]:
    emulated = EmulatedGripper()
    yield emulated
    emulated.line.close()


def test_the_dynamixel_packet_is_the_one_in_the_manual():
    """Ping of servo 1, from the protocol's e-manual."""
    assert dynamixel.packet(1, 0x01, b"") == bytes.fromhex("fffffd000103000119 4e")


def test_the_feetech_frame_is_the_one_in_the_manual():
    """Ping of servo 1, from the protocol manual."""
    assert feetech.frame(1, 1, b"") == bytes.fromhex("ffff010201fb")


@pytest.mark.parametrize("angle", [-3.0, 0.0, 0.7, 3.1])
def test_angles_survive_the_servo_steps(angle: float):
    assert dynamixel.steps_to_angle(dynamixel.angle_to_steps(angle)) == pytest.approx(angle, abs=1e-3)


def test_a_gripper_goes_where_it_is_told(gripper: EmulatedGripper):
    with closing(FeetechGripper(gripper.line.path, servo=1, closed=2048, opened=3998, timeout_s=5.0)) as driver:
        assert driver.opening() == 1.0
        driver.command(0.25)
        assert gripper.goal == pytest.approx(0.25, abs=1e-3)
        gripper.measured = 0.5
        assert driver.opening() == pytest.approx(0.5, abs=1e-3)


def test_a_gripper_command_outside_of_0_to_1_is_clipped(gripper: EmulatedGripper):
    with closing(FeetechGripper(gripper.line.path, servo=1, closed=2048, opened=3998, timeout_s=5.0)) as driver:
        driver.command(7.0)
        assert gripper.goal == pytest.approx(1.0)


@pytest.mark.parametrize("length", [0, 1])
def test_a_frame_without_room_for_its_checksum_is_refused(length: int):
    line = EmulatedLine(lambda received: (bytes([0xFF, 0xFF, 1, length, 0xFC, 0xFC, 0xFC]), len(received)))
    with closing(line), closing(SerialLine(line.path, baud=1_000_000)) as opened:
        opened.write(b"?")
        with pytest.raises(RobotError, match="2 bytes or more"):
            feetech.unframe(opened, timeout_s=5.0)


@settings(max_examples=40, deadline=None)
@given(garbage=st.lists(st.one_of(st.binary(max_size=8), st.just(feetech.HEADER)), max_size=5).map(b"".join))
def test_garbage_on_the_line_is_an_error_of_the_robot_and_nothing_else(garbage: bytes):
    line = EmulatedLine(lambda received: (garbage, len(received)))
    with closing(line), closing(SerialLine(line.path, baud=1_000_000)) as opened:
        opened.write(b"?")
        with contextlib.suppress(RobotError):
            while feetech.unframe(opened, timeout_s=0.05):
                pass


def test_another_servo_does_not_answer(gripper: EmulatedGripper):
    with pytest.raises(RobotError, match="Expected 1 bytes"):
        FeetechGripper(gripper.line.path, servo=2, closed=2048, opened=3998)


def test_a_device_that_is_not_there_is_named():
    with pytest.raises(RobotError, match="/dev/no-such-device"):
        SerialLine("/dev/no-such-device", baud=57600)


def test_an_unknown_speed_is_refused():
    with pytest.raises(RobotError, match="12345"):
        SerialLine("/dev/null", baud=12345)


def test_a_leader_arm_is_read_at_once():
    leader = EmulatedLeader()
    leader.angles[:] = [0.1, -0.2, 0.3, -0.4, 0.5, -0.6, 0.7]
    with closing(leader.line), closing(DynamixelBus(leader.line.path, range(1, 8), baud=57600)) as bus:
        assert bus.angles() == pytest.approx(leader.angles.tolist(), abs=1e-3)


def test_a_missing_servo_is_named():
    leader = EmulatedLeader(servos=(1, 2))
    leader.angles = leader.angles[:2]
    with (
        closing(leader.line),
        closing(DynamixelBus(leader.line.path, [1, 2, 3], baud=57600)) as bus,
        pytest.raises(RobotError),
    ):
        bus.angles()


def damaged(received: bytes) -> tuple[bytes, int]:
    answer = dynamixel.packet(1, dynamixel.STATUS, b"\0" + struct.pack("<i", 2048))
    return b"noise" + answer[:-1] + b"\x99", len(received)


def test_a_damaged_answer_is_refused():
    line = EmulatedLine(damaged)
    with (
        closing(line),
        closing(DynamixelBus(line.path, [1], baud=57600)) as bus,
        pytest.raises(RobotError, match=r"damaged|Expected"),
    ):
        bus.angles()
