import socket
from dataclasses import replace
from pathlib import Path

import pytest

from serl_launcher.config.actor import ActorConfig
from serl_launcher.config.beside import ConsoleConfig, DevicesConfig
from serl_launcher.config.loader import load
from serl_launcher.config.root import RunConfig
from serl_launcher.config.transport import TransportConfig
from tests.actor.free_ports import free_ports
from tools.doctor import (
    cameras_of,
    check_arms,
    check_cameras,
    check_clock,
    check_console,
    check_devices,
    check_disk,
    check_keys,
    check_ports,
    check_versions,
)
from tools.keys import init


def config(tmp_path: Path, **more: object) -> RunConfig:
    return RunConfig(output_dir=str(tmp_path), **more)


def test_this_machine_has_what_is_needed(tmp_path: Path):
    assert all(finding.is_well for finding in check_versions(config(tmp_path)))


def test_a_port_is_free_or_answers(tmp_path: Path):
    ports = free_ports(2)
    transport = TransportConfig(request_port=ports[0], broadcast_port=ports[1])
    assert [finding.says for finding in check_ports(config(tmp_path, transport=transport))] == [
        "free: start the learner"
    ] * 2
    with socket.create_server(("127.0.0.1", ports[0])):
        first, _ = check_ports(config(tmp_path, transport=transport, ip="127.0.0.1"))
    assert "the learner runs" in first.says


def test_a_learner_elsewhere_that_does_not_answer_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("tools.doctor.CONNECT_S", 0.1)
    assert not any(finding.is_well for finding in check_ports(config(tmp_path, ip="192.0.2.1")))


def test_disk_and_clock_are_looked_at(tmp_path: Path):
    assert [finding.what for finding in check_disk(config(tmp_path))] == ["disk"]
    assert [finding.what for finding in check_clock(config(tmp_path))] == ["clock", "sleep"]


def test_missing_keys_are_wrong_and_present_ones_are_well(tmp_path: Path):
    transport = replace(TransportConfig(), keys_dir=str(tmp_path))
    [missing] = check_keys(config(tmp_path, transport=transport))
    assert not missing.is_well
    init(tmp_path)
    [found] = check_keys(config(tmp_path, transport=transport))
    assert found.is_well
    [none] = check_keys(config(tmp_path))
    assert none.is_well


def test_a_device_that_is_not_plugged_in_is_wrong(tmp_path: Path):
    devices = DevicesConfig(keyboard="/dev/null", hand="gamepad", path="/dev/input/js99")
    first, second = check_devices(config(tmp_path, actor=ActorConfig(devices=devices)))
    assert (first.is_well, second.is_well) == (True, False)


def test_the_ports_and_cameras_of_a_lerobot_robot_are_devices_too():
    found = {finding.what for finding in check_devices(load(["task=so101"]))}
    assert {"/dev/ttyACM0", "/dev/ttyACM1", "/dev/video0"} <= found
    dobot = {finding.what for finding in check_devices(load(["task=dobot_pnp"]))}
    assert {"/dev/ttyUSB0", "/dev/ttyUSB1", "/dev/ttyUSB2", "/dev/ttyUSB3"} <= dobot


def test_a_taken_port_of_the_console_is_wrong(tmp_path: Path):
    [port] = free_ports(1)
    actor = ActorConfig(console=ConsoleConfig(enabled=True, port=port))
    assert [finding.is_well for finding in check_console(config(tmp_path, actor=actor))] == [True]
    with socket.create_server(("127.0.0.1", port)):
        [taken] = check_console(config(tmp_path, actor=actor))
    assert not taken.is_well
    assert "actor.console.port" in taken.says


def test_a_simulator_has_neither_cameras_nor_arms_to_look_at(tmp_path: Path):
    assert list(check_cameras(config(tmp_path))) == []
    assert list(check_arms(config(tmp_path))) == []


def test_the_ports_of_both_arms_are_tried(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("tools.doctor.ARM_S", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as commands:
        taken, free = commands.getsockname()[1], free_ports(1)[0]
        left = f"environment.options.left={{host: 127.0.0.1, dashboard_port: {taken}, feedback_port: {free}}}"
        right = "environment.options.right.host=192.0.2.1"
        found = list(check_arms(load(["task=dobot_pnp", left, right])))
    assert [finding.is_well for finding in found] == [True, False, False, False]
    assert "for commands" in found[0].says
    assert "environment.options.left.host" in found[1].says
    assert [finding.what for finding in found[2:]] == ["right arm 192.0.2.1:29999", "right arm 192.0.2.1:30004"]


def test_every_camera_of_a_robot_is_looked_at(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("tools.doctor.PICTURES_S", 0.1)
    names, port = ("cam_high", "cam_left_wrist", "cam_right_wrist"), free_ports(1)[0]
    urls = [f"environment.options.cameras.{name}.url=http://127.0.0.1:{port}/{name}" for name in names]
    found = list(check_cameras(load(["task=dobot_pnp", *urls])))
    assert [(finding.what, finding.is_well) for finding in found] == [(name, False) for name in names]
    so101 = cameras_of(load(["task=so101"]))
    assert [(name, camera.kind, camera.options["type"]) for name, camera in so101.items()] == [
        ("front", "lerobot", "opencv")
    ]
