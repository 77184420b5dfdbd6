"""Three network cameras in a process of their own, as real ones are no part of the actor's: `python -m ...cameras`.

Prints its port, sends 30 pictures a second per camera, ends when standard input closes.
"""

import sys
import threading

from robot_infra.robots.dobot.emulator.cameras import EmulatedCameras
from tools.bench_loop.robot import CAMERAS, HEIGHT, WIDTH
from tools.bench_workload import bench_robot, make_frames

CAMERA_HZ = 30.0
NUM_PICTURES = 16


def main() -> None:
    """Films a scene that drifts past."""
    frames = make_frames(NUM_PICTURES, bench_robot(size=max(WIDTH, HEIGHT), cameras=len(CAMERAS)))
    cameras, stop = EmulatedCameras(), threading.Event()
    sys.stdout.write(f"{cameras.port}\n")
    sys.stdout.flush()

    def film() -> None:
        number = 0
        while not stop.wait(1 / CAMERA_HZ):
            shown = frames[number % NUM_PICTURES, :, :HEIGHT, :WIDTH]
            cameras.show(dict(zip(CAMERAS, shown, strict=True)))
            number += 1

    filming = threading.Thread(target=film)
    filming.start()
    sys.stdin.read()
    stop.set()
    filming.join()
    cameras.close()


if __name__ == "__main__":
    main()
