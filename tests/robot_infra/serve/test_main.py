"""`python -m robot_infra.serve` as a process, driven from here."""

import os
import signal
import subprocess
import sys
import time
from contextlib import closing

import numpy as np

from robot_infra.envs import build
from serl_launcher.config.environment import EnvironmentConfig
from tests.actor.free_ports import free_ports


def start(*overrides: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "robot_infra.serve", *overrides], stderr=subprocess.PIPE, text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def test_the_configured_robot_is_served_until_ctrl_c():
    ports = free_ports(2)
    process = start("task=sim_pnp", f"transport.request_port={ports[0]}", f"transport.broadcast_port={ports[1]}")
    try:
        options = {"address": "127.0.0.1", "port": ports[0], "connect_s": 60.0, "step_s": 30.0}
        with closing(build(EnvironmentConfig(name="remote", options=options))) as robot:
            observation = robot.reset(seed=0)
            assert robot.spec.name == "sim_pnp"
            transition = robot.step(observation.state.astype(np.float32))
            assert set(transition.observation.images) == set(robot.spec.camera_names)
            began_s = time.monotonic()
            process.send_signal(signal.SIGINT)
            _, said = process.communicate(timeout=30)
        assert time.monotonic() - began_s < 20
        assert process.returncode == 0, said
        assert f"sim_pnp can be driven at 127.0.0.1, port {ports[0]}" in said
    finally:
        process.kill()
        process.communicate()


def test_a_setting_that_makes_no_sense_ends_it_with_a_line():
    process = start("task=sim_pnp", "environment.options.catalogue=toys")
    _, said = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "catalogue" in said
