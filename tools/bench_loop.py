"""Jitter of the control loop: `python -m tools.bench_loop --hz 20 50` (`make bench-loop`).

An actor's own rollout drives the emulated X-Trainer's cameras and a position robot that keeps its own time, while a
spool takes every step on the disk. Prints how late ticks end: median, 99 %, worst, and how many deadlines were missed.
"""

import argparse
import json
import logging
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

from actor.clearance import Clearance
from actor.intervention import Control
from actor.pacer import Pacer
from actor.progress import Progress
from actor.recorder import Recorder
from actor.rollout import Rollout
from actor.spool import Spool
from robot_infra import safety
from robot_infra.cameras.frames import CameraReader
from robot_infra.cameras.mjpeg import MjpegSource
from robot_infra.clock import TickClock
from robot_infra.interfaces import Transition
from robot_infra.robots.dobot.emulator.cameras import EmulatedCameras
from serl_launcher.specs import CameraSpec, RobotSpec
from serl_launcher.types import Observation, Outcome

logger = logging.getLogger("tools.bench_loop")

CAMERAS = ("cam_high", "cam_left_wrist", "cam_right_wrist")
CAMERA_HZ = 30.0
WIDTH, HEIGHT = 298, 224
NUM_JOINTS = 14


class Bench:
    """A robot with three network cameras and joints that are where they were sent; ends its ticks by itself."""

    keeps_time = True

    def __init__(self, hz: float, num_steps: int, port: int) -> None:
        names = tuple(f"j{i}" for i in range(NUM_JOINTS))
        self.spec = RobotSpec(
            name="bench", cameras=tuple(CameraSpec(name=name, height=HEIGHT, width=WIDTH) for name in CAMERAS),
            state_names=names, action_names=names, action_low=(-3.0,) * NUM_JOINTS, action_high=(3.0,) * NUM_JOINTS,
            control_hz=hz, max_speed=(2.0,), max_acceleration=(20.0,), max_jerk=(400.0,),
        )  # fmt: skip
        self.clock, self._num_steps = TickClock(1 / hz), num_steps
        self.cameras = [
            CameraReader(name, MjpegSource(f"http://127.0.0.1:{port}/{name}"), max_age_s=5.0, frozen_after_s=0.0)
            for name in CAMERAS
        ]
        for camera in self.cameras:
            camera.wait(10.0)

    def reset(self, *, seed: int) -> Observation:
        """Begins."""
        del seed
        self._joints, self._step = np.zeros(NUM_JOINTS, np.float32), 0
        self.clock.start()
        return self._observe()

    def step(self, action: np.ndarray) -> Transition:
        """Waits for the end of the tick, then looks."""
        self.clock.wait()
        self._joints, self._step = action, self._step + 1
        return Transition(
            observation=self._observe(), reward=0.0, terminated=False, truncated=self._step >= self._num_steps,
            success=False, executed_action=action,
        )  # fmt: skip

    def render(self) -> np.ndarray:
        """Returns the first camera."""
        return self.cameras[0].newest()

    def close(self) -> None:
        """Ends the cameras."""
        for camera in self.cameras:
            camera.close()

    def _observe(self) -> Observation:
        return Observation(
            images={camera.name: camera.newest() for camera in self.cameras}, state=self._joints, prompt="go"
        )


class Waver:
    """A person who moves all joints all the time."""

    def __init__(self) -> None:
        self._tick = 0

    def reset(self) -> None:
        """Begins."""
        self._tick = 0

    def command(self, observation: Observation, proposal: np.ndarray | None) -> np.ndarray:
        """Returns the next point of a wave."""
        del observation, proposal
        self._tick += 1
        return np.full(NUM_JOINTS, np.sin(0.05 * self._tick), np.float32)

    def judge(self, transition: Transition) -> Outcome:
        """Returns failure; nobody cares."""
        del transition
        return Outcome.FAILURE


class Alone:
    """No learner, and no limit of the disk."""

    announcement = None
    last_error = None


def measure(hz: float, *, seconds: float, port: int) -> dict[str, float]:
    """Returns the lateness of the ticks at a rate, in milliseconds."""
    robot = Bench(hz, int(seconds * hz), port)
    with tempfile.TemporaryDirectory() as directory:
        spool = Spool(Path(directory) / "spool", max_bytes=8 * 1024**3)
        rollout = Rollout(
            env=robot, control=Control(policy=None, operator=Waver(), execution_horizon=1),
            limits=safety.limits_of(robot.spec, []), recorder=Recorder(log=spool, spec=robot.spec, actor_id="bench"),
            progress=Progress.load(Path(directory) / "progress.json"), clearance=Clearance(learner=Alone(), room=spool),
            pacer=Pacer(0.0),
        )  # fmt: skip
        rollout.play_episode(lambda: None)
        spool.close()
    robot.close()
    late_ms = 1e3 * np.asarray(robot.clock.lateness_s)
    return {
        "hz": hz, "num_ticks": robot.clock.num_ticks, "median_ms": float(np.median(late_ms)),
        "p99_ms": float(np.percentile(late_ms, 99)), "worst_ms": float(late_ms.max()), "num_late": robot.clock.num_late,
    }  # fmt: skip


def main() -> int:
    """Prints one line per rate; returns 1 where the 99 % quantile is above the limit."""
    parser = argparse.ArgumentParser(prog="python -m tools.bench_loop", description=__doc__)
    parser.add_argument("--hz", type=float, nargs="+", default=[20.0, 50.0])
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--limit_ms", type=float, default=5.0, help="the 99 %% quantile may be this at most")
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    chosen = parser.parse_args(sys.argv[1:])
    cameras, stop = EmulatedCameras(), threading.Event()
    picture = np.random.default_rng(0).integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8)

    def film() -> None:
        while not stop.wait(1 / CAMERA_HZ):
            cameras.show(dict.fromkeys(CAMERAS, picture))

    threading.Thread(target=film, daemon=True).start()
    found = [measure(hz, seconds=chosen.seconds, port=cameras.port) for hz in chosen.hz]
    stop.set()
    time.sleep(2 / CAMERA_HZ)
    cameras.close()
    for each in found:
        sys.stdout.write(
            f"{each['hz']:g} Hz, {each['num_ticks']:.0f} ticks, 3 cameras; late: {each['median_ms']:.2f} ms (median), "
            f"{each['p99_ms']:.2f} ms (99 %), {each['worst_ms']:.2f} ms (worst); {each['num_late']:.0f} missed.\n"
        )
    if chosen.json:
        chosen.json.write_text(json.dumps(found, indent=2) + "\n")
    return int(any(each["p99_ms"] > chosen.limit_ms for each in found))


if __name__ == "__main__":
    sys.exit(main())
