"""The trainer's own parts on recorded data: feed, algorithm, optimizer, timed update by update."""

import time
from pathlib import Path
from typing import Any

import numpy as np

from learner.algorithms.flow_actor_critic import FlowActorCritic
from learner.trainer.build import build_trainer
from learner.trainer.loop import Trainer
from learner.trainer.optimization import Optimization
from serl_launcher.config import RunConfig, load
from serl_launcher.datasets.writer import DatasetWriter
from serl_launcher.specs import RobotSpec
from tools.bench_train.stopwatch import Stopwatch
from tools.bench_workload import bench_robot, encode_all, make_frames, record_of

PARTS = ("sampling", "host_to_device", "forward", "backward", "optimizer", "other")
ASSETS = Path(__file__).resolve().parents[2] / "robot_infra" / "assets" / "sim_pnp_base"
_NUM_EPISODES, _NUM_STEPS = 20, 60


def record(root: Path, *, size: int) -> RobotSpec:
    """Writes episodes of the demo's shape (three cameras, 14 joints) into a dataset."""
    spec = bench_robot(size=size, hz=10.0)
    frames = make_frames(_NUM_STEPS + 1, spec)
    writer = DatasetWriter(root, spec)
    for number in range(_NUM_EPISODES):
        writer.append(record_of(encode_all(frames, spec, _NUM_STEPS + 1), f"bench-1-{number}"))
    return spec


def config_of(algorithm: str, directory: Path, overrides: list[str]) -> RunConfig:
    """Returns the demo's configuration for one algorithm, with nothing to wait for."""
    return load([
        f"algo={algorithm}", "task=sim_pnp", "policy=pi0_tiny", f"policy.tokenizer_path={ASSETS / 'tokenizer.model'}",
        f"output_dir={directory}", f"unique_identifier={algorithm}",
        f"dataset.repo_id=[{directory / 'demonstrations'}]",
        "dataset.noop_threshold=0", "algo.training_starts=0", "algo.max_updates=1000000",
        "algo.sac.actor_training_starts=0", *overrides,
    ])  # fmt: skip


class Bench:
    """One algorithm in the trainer's own assembly."""

    def __init__(self, config: RunConfig) -> None:
        """Builds the trainer and starts its feed."""
        self.watch = Stopwatch()
        self._trainer: Trainer = build_trainer(config)
        self._algorithm, self._feed = self._trainer._algorithm, self._trainer._feed
        optimizations = [each for each in _members(self._algorithm) if isinstance(each, Optimization)]
        self.watch.time(self._feed, "next", "sampling")
        self.watch.time(_policy(self._algorithm), "prepare", "host_to_device")
        for optimization in optimizations:
            engine = optimization._engine
            self.watch.time(engine.module, "forward", "forward")
            self.watch.time(engine, "backward", "backward")
            for method in ("begin", "step"):
                self.watch.time(engine, method, "optimizer")
        self._time_targets()
        self._feed.start()

    def _time_targets(self) -> None:
        """Counts what is computed without gradients for the critics' targets as forward passes, for that it is."""
        if isinstance(self._algorithm, FlowActorCritic):
            for method in ("encode", "draw"):
                self.watch.time(self._algorithm._flow_actor.drawing, method, "forward")
            for method in ("features", "value"):
                self.watch.time(self._algorithm._target.module, method, "forward")

    def run(self, num_updates: int) -> np.ndarray:
        """Returns the seconds of each update, float64; what they were spent on is in `watch`."""
        seconds = []
        for _ in range(num_updates):
            started = time.perf_counter()
            self.watch.enter("other")
            self._algorithm.update(self._feed.next())
            self.watch.leave()
            seconds.append(time.perf_counter() - started)
        return np.array(seconds)

    def close(self) -> None:
        """Ends the feed."""
        self._feed.stop()


def _members(algorithm: object) -> list[object]:
    inner = getattr(algorithm, "_sft", None)
    return list(vars(algorithm if inner is None else inner).values())


def _policy(algorithm: object) -> object:
    owner: Any = getattr(algorithm, "_sft", algorithm)  # Any: whichever algorithm wraps the policy.
    return owner.policy
