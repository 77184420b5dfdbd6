import threading

import numpy as np

from robot_infra.robots.dobot.emulator.cameras import EmulatedCameras
from tools.bench_loop import CAMERAS, HEIGHT, WIDTH, measure


def test_the_loop_is_measured_with_three_cameras():
    cameras, stop = EmulatedCameras(), threading.Event()
    picture = np.zeros((HEIGHT, WIDTH, 3), np.uint8)

    def film() -> None:
        while not stop.wait(0.1):
            cameras.show(dict.fromkeys(CAMERAS, picture))

    threading.Thread(target=film, daemon=True).start()
    found = measure(20.0, seconds=1.0, port=cameras.port)
    stop.set()
    cameras.close()
    assert found["num_ticks"] == 20
    assert 0 <= found["median_ms"] <= found["p99_ms"] <= found["worst_ms"]
