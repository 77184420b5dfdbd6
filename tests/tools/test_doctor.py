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


def test_a_simulator_has_no_cameras_to_look_at(tmp_path: Path):
    assert list(check_cameras(config(tmp_path))) == []
