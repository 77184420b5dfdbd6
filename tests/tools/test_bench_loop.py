import threading
from functools import partial
from pathlib import Path

import numpy as np

from robot_infra.robots.dobot.emulator.cameras import EmulatedCameras
from serl_launcher.config.transport import TransportConfig
from tests.actor.free_ports import free_ports
from tests.actor.learner_process import serving
from tools.bench_loop.__main__ import running
from tools.bench_loop.loop import measure
from tools.bench_loop.robot import CAMERAS, HEIGHT, WIDTH


def test_the_loop_is_measured_with_three_cameras_while_a_learner_takes_every_step_and_somebody_watches(tmp_path: Path):
    cameras, stop = EmulatedCameras(), threading.Event()
    picture = np.zeros((HEIGHT, WIDTH, 3), np.uint8)

    def film() -> None:
        while not stop.wait(0.1):
            cameras.show(dict.fromkeys(CAMERAS, picture))

    threading.Thread(target=film, daemon=True).start()
    request, broadcast = free_ports(2)
    with serving(tmp_path / "learner", (request, broadcast)) as learner:
        found = measure(
            20.0, seconds=1.0, camera_port=cameras.port, directory=tmp_path,
            learner=TransportConfig(request_port=request, broadcast_port=broadcast), watch=partial(running, "viewer"),
        )  # fmt: skip
        [episode] = learner.episodes()
    stop.set()
    cameras.close()
    assert len(episode.steps) == 20
    assert 20 <= found.num_ticks < 30  # After the last step the robot brakes, unrecorded.
    assert found.num_delivered == 20 + 2
    assert 0 <= found.median_ms <= found.p99_ms <= found.worst_ms
    assert found.work_p99_ms > 0
    assert found.num_pictures > 0
