"""A robot and its actor in two threads, on real sockets."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest

from robot_infra.envs import build
from robot_infra.interfaces import RobotEnv, Transition
from robot_infra.serve import messages
from robot_infra.serve.client import RemoteRobot
from robot_infra.serve.server import RobotServer
from robot_infra.wrappers.gripper_penalty import GripperPenalty
from serl_launcher.config.environment import EnvironmentConfig
from serl_launcher.config.transport import TransportConfig
from serl_launcher.errors import ConfigError, ProtocolError, RobotError, SafetyError
from serl_launcher.transport.sockets import ActorSockets
from serl_launcher.transport.waker import Waker
from tests.actor.tiny_robot import SPEC, TinyRobot
from tools.keys import add, init

SMOOTH = msgspec.structs.replace(SPEC, max_speed=(5.0,), max_acceleration=(50.0,))


@contextmanager
def serving(robot: RobotEnv, **more: object) -> Iterator[RobotServer]:
    config = replace(TransportConfig(request_port=0, dead_after_s=0.6), broadcast_port=0, **more)
    server, stop = RobotServer(robot, config), threading.Event()
    thread = threading.Thread(target=server.run, args=(stop,))
    thread.start()
    try:
        yield server
    finally:
        server.stop(stop)
        thread.join(timeout=10)


def connect(server: RobotServer, **more: object) -> RemoteRobot:
    options = {"address": "127.0.0.1", "port": server.port, "connect_s": 15.0, "step_s": 10.0} | more
    robot = build(EnvironmentConfig(name="remote", options=options))
    assert isinstance(robot, RemoteRobot)
    return robot


def wait_until(condition: Callable[[], object]) -> None:
    deadline_s = time.monotonic() + 15
    while not condition():
        assert time.monotonic() < deadline_s, "It did not come true in time."
        time.sleep(0.01)


def command(value: float) -> np.ndarray:
    return np.full(2, value, np.float32)


def test_an_episode_over_the_network_is_that_of_the_robot():
    robot = TinyRobot()
    with serving(robot) as server, closing(connect(server)) as remote:
        assert remote.spec == SPEC
        seen = remote.reset(seed=3)
        np.testing.assert_array_equal(seen.state, robot.joints)
        assert seen.prompt == "reach to the left"
        transition = remote.step(command(-1.0))
        assert (transition.success, transition.terminated, transition.reward) == (True, True, 1.0)
        np.testing.assert_array_equal(transition.executed_action, command(-1.0))
        assert (transition.observation.images["cam"] == 1).all()
        assert remote.render().shape == (16, 24, 3)


def test_what_a_wrapper_on_the_robots_computer_charges_reaches_the_judges():
    robot = GripperPenalty(TinyRobot(), grippers=["j1"], penalty=0.25)
    with serving(robot) as server, closing(connect(server)) as remote:
        remote.reset(seed=0)
        assert [remote.step(command(value)).cost for value in (1.0, -0.5, -0.5)] == [0.0, 0.25, 0.0]


def test_the_robots_own_computer_keeps_the_limits():
    robot = TinyRobot(spec=SMOOTH, max_steps=100)
    with serving(robot) as server, closing(connect(server)) as remote:
        remote.reset(seed=0)
        for _ in range(5):
            remote.step(command(2.0))
    steps = np.abs(np.diff(np.stack(robot.commands), axis=0))
    assert steps.max() <= 0.1 + 1e-6


def test_an_actor_that_falls_silent_leaves_a_robot_that_holds():
    robot = TinyRobot(spec=SMOOTH, max_steps=1000)
    with serving(robot) as server, closing(connect(server)) as remote:
        remote.reset(seed=0)
        for _ in range(6):
            remote.step(command(2.0))
        wait_until(lambda: server.num_holds >= 1)
        resting = robot.joints.copy()
        time.sleep(0.2)
        np.testing.assert_array_equal(robot.joints, resting)
        assert np.abs(np.diff(np.stack(robot.commands), 2, axis=0)).max() <= 0.02 + 1e-6
        remote.step(resting)


def test_an_action_that_is_no_number_is_a_fault_on_the_robots_side():
    robot = TinyRobot(max_steps=100)
    with serving(robot) as server, closing(connect(server)) as remote:
        remote.reset(seed=0)
        with pytest.raises(SafetyError, match="not finite"):
            remote.step(command(np.nan))
        assert robot.commands == []


class BrokenRobot(TinyRobot):
    """Has a driver with a mistake in it, which shows once."""

    breaks: bool = False

    def step(self, action: np.ndarray) -> Transition:
        transition = super().step(action)
        if self.breaks:
            self.breaks = False
            raise KeyError("a mistake in the driver")
        return transition


def test_a_mistake_in_the_driver_is_a_fault_after_which_the_robot_brakes_and_is_served_on():
    robot = BrokenRobot(spec=SMOOTH, max_steps=100)
    with serving(robot) as server, closing(connect(server)) as remote:
        remote.reset(seed=0)
        for _ in range(3):
            remote.step(command(2.0))
        robot.breaks = True
        with pytest.raises(SafetyError, match="a mistake in the driver"):
            remote.step(command(2.0))
        num_commands = len(robot.commands)
        assert num_commands > 3, "It came to rest."
        with pytest.raises(SafetyError, match="a mistake in the driver"):
            remote.step(command(2.0))
        remote.clear_fault(by="Ada")
        remote.reset(seed=0)
    assert np.abs(np.diff(np.stack(robot.commands[:num_commands]), 2, axis=0)).max() <= 0.02 + 1e-6


class DeadRobot(TinyRobot):
    """Cannot even be braked."""

    def step(self, action: np.ndarray) -> Transition:
        if self.commands:
            raise OSError("unplugged")
        return super().step(action)


def test_a_robot_that_cannot_be_braked_does_not_keep_the_server_from_ending():
    config = TransportConfig(request_port=0, broadcast_port=0)
    server, stop = RobotServer(DeadRobot(spec=SMOOTH, max_steps=100), config), threading.Event()
    thread = threading.Thread(target=server.run, args=(stop,))
    thread.start()
    with closing(connect(server)) as remote:
        remote.reset(seed=0)
        remote.step(command(2.0))
        port = server.port
        server.stop(stop)
        thread.join(timeout=10)
    assert not thread.is_alive()
    RobotServer(TinyRobot(), replace(config, request_port=port)).run(stop)


def test_a_seed_below_zero_is_no_message_of_the_protocol():
    with pytest.raises(ProtocolError):
        messages.decode_question(messages.encode(messages.Reset(1, -1)))


def test_an_actor_that_only_says_that_it_is_there_is_silent(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("robot_infra.serve.client.BEAT_S", 0.02)
    robot = TinyRobot(spec=SMOOTH, max_steps=1000)
    with serving(robot) as server, closing(connect(server)) as remote:
        remote.reset(seed=0)
        remote.step(command(2.0))
        wait_until(lambda: server.num_holds >= 1)


def test_a_robot_obeys_one_actor_until_that_one_is_gone():
    with serving(TinyRobot()) as server:
        with closing(connect(server)):
            time.sleep(0.8)
            with pytest.raises(RobotError, match="another actor"):
                connect(server)
        time.sleep(1.0)
        connect(server).close()


def test_garbage_is_refused_and_the_robot_goes_on():
    with serving(TinyRobot()) as server:
        config = TransportConfig(request_port=server.port, broadcast_port=server.port + 1)
        with closing(Waker()) as waker, ActorSockets(config, "127.0.0.1", keys=None, waker=waker) as stranger:
            wait_until(lambda: stranger.send([b"\x93garbage"]))
            wait_until(lambda: stranger.receive() is not None)
        with closing(connect(server)) as remote:
            remote.reset(seed=0)


def test_without_a_server_the_actor_says_what_to_check():
    options = {"address": "127.0.0.1", "port": 1, "connect_s": 0.3}
    with pytest.raises(RobotError, match=r"python -m robot_infra\.serve"):
        build(EnvironmentConfig(name="remote", options=options))


def test_beyond_this_machine_keys_are_needed(tmp_path: Path):
    with pytest.raises(ConfigError, match="keys"):
        RobotServer(TinyRobot(), replace(TransportConfig(), request_port=0, broadcast_port=0, bind="0.0.0.0"))


def test_with_keys_only_those_on_the_list_drive_the_robot(tmp_path: Path):
    init(tmp_path)
    add(tmp_path, "actor")
    with serving(TinyRobot(), keys_dir=str(tmp_path)) as server:
        with closing(connect(server, keys_dir=str(tmp_path / "robots" / "actor"))) as remote:
            remote.reset(seed=0)
        with pytest.raises(RobotError):
            connect(server, connect_s=1.0)


def test_a_misspelt_option_is_named():
    with pytest.raises(ConfigError, match="hostname"):
        build(EnvironmentConfig(name="remote", options={"hostname": "x"}))
