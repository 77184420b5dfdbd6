import json
from pathlib import Path

import pytest

from actor import build
from actor.build import opened
from serl_launcher.config.loader import load
from tests.actor.free_ports import free_ports
from tests.actor.test_pacer import Clocked


def test_the_status_of_a_robot_that_keeps_its_own_time_counts_its_late_ticks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(build, "build_env", lambda config, beside: Clocked())
    request, broadcast = free_ports(2)
    ports = [f"transport.request_port={request}", f"transport.broadcast_port={broadcast}"]
    with opened(load([f"output_dir={tmp_path}", "actor.intervention.enabled=false", *ports])) as actor:
        actor.reporter.write()
    assert json.loads(actor.reporter.status_path.read_text())["num_late_ticks"] == 3
