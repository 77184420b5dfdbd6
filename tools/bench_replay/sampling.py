"""Random samples per second and core, and how long a batch takes with two workers: hiors beside `LeRobotDataset`."""

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from learner.replay.chunks import ChunkSampler
from learner.replay.reader import ReplayDataset
from tools.bench_results import Result
from tools.bench_workload import percentile_ms

HORIZON = 50
RL_STEPS = 10
"""Steps between an observation and the next one in the samples for reinforcement learning."""
BATCH_SIZE = 64
NUM_WORKERS = 2


def sample_ours(root: Path, *, seconds: float, label: str = "ours", at_least: float | None = 600) -> list[Result]:
    """Samples chunks, and pairs of observations with the chunk between them."""
    dataset = ReplayDataset(root)
    rng = np.random.default_rng(0)
    results = []
    for name, horizon, with_next in (("chunk", HORIZON, False), ("obs+next", RL_STEPS, True)):
        sampler = ChunkSampler(dataset, horizon=horizon, cameras=dataset.camera_names, with_next=with_next)

        def draw(sampler: ChunkSampler = sampler) -> int:
            return len(sampler.sample(rng.integers(dataset.num_steps, size=BATCH_SIZE)))

        results.append(Result(f"sample/{label}/{name}", _rate(draw, seconds), "samples/s/core", at_least=at_least))
    return results


def sample_lerobot(root: Path, *, form: str, backend: str | None, seconds: float) -> list[Result]:
    """Does the same with `LeRobotDataset` as its own training does: one item after the other."""
    rng = np.random.default_rng(0)
    label = form if backend is None else f"{form} ({backend})"
    results = []
    for name in ("chunk", "obs+next"):
        dataset = _open_lerobot(root, name, backend)

        def draw(dataset: "object" = dataset) -> int:
            dataset[int(rng.integers(len(dataset)))]  # pyright: ignore - LeRobot is imported late.
            return 1

        results.append(Result(f"sample/lerobot {label}/{name}", _rate(draw, seconds), "samples/s/core"))
    return results


def batches_ours(root: Path, *, num_batches: int) -> list[Result]:
    """Times batches of chunks from worker processes, each with a reader of its own."""
    from torch.utils.data import DataLoader

    batches = _Batches(root, num_batches + 1)
    loader = DataLoader(batches, batch_size=None, num_workers=NUM_WORKERS)  # pyright: ignore - It has what is needed.
    return _batch_times("ours", iter(loader), num_batches)


def batches_lerobot(root: Path, *, form: str, backend: str | None, num_batches: int) -> list[Result]:
    """Times batches of chunks from LeRobot's dataset in a DataLoader, as `lerobot-train` has it."""
    from lerobot.datasets import video_utils
    from torch.utils.data import DataLoader, RandomSampler

    # Decoders that this process has opened would share their files' positions with forked workers.
    video_utils._default_decoder_cache.clear()
    dataset = _open_lerobot(root, "chunk", backend)
    drawn = RandomSampler(dataset, replacement=True, num_samples=BATCH_SIZE * (num_batches + 1))  # pyright: ignore
    loader = DataLoader(dataset, batch_size=BATCH_SIZE, num_workers=NUM_WORKERS, sampler=drawn)  # pyright: ignore
    label = form if backend is None else f"{form} ({backend})"
    return _batch_times(f"lerobot {label}", iter(loader), num_batches)


def best_video_backend() -> str:
    """Returns `torchcodec` where it works on this machine, else `pyav`, and says why."""
    try:
        from torchcodec.decoders import VideoDecoder  # noqa: F401 - Importing it is the question.
    except (ImportError, RuntimeError, OSError) as exc:
        reason = next((line for line in str(exc).splitlines() if line.strip()), type(exc).__name__)
        sys.stderr.write(
            f"torchcodec is left out, LeRobot's video form is read by pyav: {reason.strip()} "
            "Install FFmpeg's libraries (apt-get install ffmpeg) to measure it too.\n"
        )
        return "pyav"
    return "torchcodec"


class _Batches:
    """Numbered random batches; each worker opens the dataset for itself."""

    def __init__(self, root: Path, num_batches: int) -> None:
        self._root = root
        self._num_batches = num_batches
        self._sampler: ChunkSampler | None = None

    def __len__(self) -> int:
        return self._num_batches

    def __getitem__(self, number: int) -> tuple[np.ndarray, ...]:
        if self._sampler is None:
            dataset = ReplayDataset(self._root)
            self._sampler = ChunkSampler(dataset, horizon=HORIZON, cameras=dataset.camera_names)
        steps = np.random.default_rng(number).integers(self._sampler.dataset.num_steps, size=BATCH_SIZE)
        batch = self._sampler.sample(steps)
        return batch.images, batch.state, batch.actions, batch.is_pad


def _open_lerobot(root: Path, name: str, backend: str | None) -> "object":
    from lerobot.datasets.lerobot_dataset import LeRobotDataset, LeRobotDatasetMetadata

    metadata = LeRobotDatasetMetadata("bench/sampling", root=root)
    between = [0.0, RL_STEPS / metadata.fps]
    later = [step / metadata.fps for step in range(RL_STEPS if name == "obs+next" else HORIZON)]
    wanted = {"action": later}
    if name == "obs+next":
        wanted |= {"observation.state": between}
        wanted |= dict.fromkeys(metadata.camera_keys, between)
    return LeRobotDataset("bench/sampling", root=root, delta_timestamps=wanted, video_backend=backend)


def _rate(draw: Callable[[], int], seconds: float) -> float:
    """Returns samples per second of CPU time; the first draw warms up."""
    draw()
    count, cpu, deadline = 0, time.process_time(), time.perf_counter() + seconds
    while time.perf_counter() < deadline or not count:
        count += draw()
    return count / (time.process_time() - cpu)


def _batch_times(label: str, batches: Iterator[object], num_batches: int) -> list[Result]:
    next(batches)
    times = []
    for _ in range(num_batches):
        began = time.perf_counter()
        next(batches)
        times.append(time.perf_counter() - began)
    name = f"batch {BATCH_SIZE}, {NUM_WORKERS} workers/{label}"
    return [
        Result(f"{name}/p50", percentile_ms(times, 50), "ms"),
        Result(f"{name}/p99", percentile_ms(times, 99), "ms"),
    ]
