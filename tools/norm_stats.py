"""Normalisation statistics of a dataset: `python -m tools.norm_stats DATASET --output norm_stats.json`.

Reads the scalar columns alone, file after file; no image is decoded. The result is openpi's file: mean, standard
deviation, 1 % and 99 % quantiles of the states and of the actions in whole chunks, exact, in bounded memory.
"""

import argparse
import logging
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import pyarrow.parquet as pq
from jaxtyping import Float, Int
from numpy import ndarray

from serl_launcher.datasets import features
from serl_launcher.datasets.layout import dataset_path, read_info
from serl_launcher.datasets.tables import column_values
from serl_launcher.errors import DatasetError, HiorsError
from serl_launcher.policies.exact_statistics import ExactStatistics
from serl_launcher.policies.normalization import NormStats, relative_dimensions, write_norm_stats

logger = logging.getLogger(__name__)

BLOCK_STEPS = 1 << 17
"""Steps counted at once."""
KEPT_BYTES = 1 << 30
"""Of scalar columns: a dataset up to this size is read once, a larger one twice."""
LEAST_SPREAD = 0.01
"""In robot units: a dimension that moves less is worth a warning."""
VERSIONS = ("v3.", "v2.")


@dataclass(slots=True)
class Block:
    """Consecutive steps of whole episodes."""

    state: Float[ndarray, "N S"]
    action: Float[ndarray, "N A"]
    episode: Int[ndarray, " N"]


def norm_stats(root: Path, horizon: int, relative: np.ndarray | None = None) -> tuple[dict[str, NormStats], int]:
    """Returns the statistics of `state` and `actions`, and how many steps they are of.

    Args:
        root: A LeRobot dataset, ours or another's.
        horizon: Every real action of the chunk that begins at a step counts; 1 counts each action once.
        relative: bool [A]; True where the policy predicts action minus the state at the chunk's first step.

    Raises:
        DatasetError: There is no step, a file is damaged, or `relative` is not of the actions' and states' width.
    """
    counted: _Counted | None = None
    kept = _Kept(root)
    for is_first_pass in (True, False):
        for block in kept:
            counted = _Counted(block, horizon, relative) if counted is None else counted
            counted.add(block)
        if counted is None:
            raise DatasetError(f"Expected at least one recorded step in {root}, found none.")
        if is_first_pass:
            counted.next_pass()
    assert counted is not None
    return counted.result(), counted.num_steps


def blocks(root: Path) -> Iterator[Block]:
    """Yields the steps of a dataset, some at a time, an episode never in two blocks."""
    num_episodes = read_info(root, versions=VERSIONS)["total_episodes"]
    waiting: list[Block] = []
    for path in sorted((root / "data").glob("chunk-*/*.parquet")):
        waiting.append(_read(path, num_episodes))
        if sum(len(block.episode) for block in waiting) >= BLOCK_STEPS:
            yield _concatenated(waiting)
            waiting = []
    if any(len(block.episode) for block in waiting):
        yield _concatenated(waiting)


def main(arguments: list[str]) -> int:
    """Runs the tool; returns 0 where all is well."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.norm_stats", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dataset", help="a dataset, or its name below HF_LEROBOT_HOME")
    parser.add_argument("--output", type=Path, help="file to write; default: only print")
    parser.add_argument("--horizon", type=int, default=50, help="actions in one chunk (policy.horizon)")
    parser.add_argument("--relative", action="store_true", help="joints relative to the state (policy.delta_actions)")
    chosen = parser.parse_args(arguments)
    root = dataset_path(chosen.dataset)
    try:
        names = _action_names(root) if chosen.relative else None
        started = time.perf_counter()
        stats, num_steps = norm_stats(root, chosen.horizon, None if names is None else relative_dimensions(names))
    except HiorsError as exc:
        sys.stderr.write(f"{exc}\n")
        return 1
    seconds = time.perf_counter() - started
    if chosen.output is not None:
        chosen.output.parent.mkdir(parents=True, exist_ok=True)
        write_norm_stats(chosen.output, stats)
    for line in _report(stats):
        sys.stdout.write(f"{line}\n")
    sys.stdout.write(f"{num_steps} frames in {seconds:.2f} s: {num_steps / seconds:,.0f} frames/s.\n")
    return 0


class _Kept:
    """The blocks of a dataset, to be gone over twice; what fits into memory is read once."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._blocks: list[Block] = []

    def __iter__(self) -> Iterator[Block]:
        if self._blocks:
            yield from self._blocks
            return
        fitting, num_bytes = [], 0
        for block in blocks(self._root):
            num_bytes += block.state.nbytes + block.action.nbytes + block.episode.nbytes
            fitting = [*fitting, block] if num_bytes <= KEPT_BYTES else []
            yield block
        self._blocks = fitting if num_bytes <= KEPT_BYTES else []


class _Counted:
    """Statistics of states, of absolute and of relative actions; shown every block twice."""

    def __init__(self, first: Block, horizon: int, relative: np.ndarray | None) -> None:
        width = first.action.shape[1]
        self._horizon = horizon
        self._mask = np.zeros(width, bool) if relative is None else np.asarray(relative, bool)
        if self._mask.any() and not len(self._mask) == width == first.state.shape[1]:
            raise DatasetError(
                f"Relative actions need states and actions of one width, got {first.state.shape[1]} and {width}."
            )
        self._states = ExactStatistics(first.state.shape[1])
        self._absolute = ExactStatistics(int((~self._mask).sum()))
        self._relative = ExactStatistics(int(self._mask.sum()))

    @property
    def num_steps(self) -> int:
        """Steps seen."""
        return self._states.count

    def add(self, block: Block) -> None:
        """Counts the states and the actions of whole episodes."""
        self._states.add(block.state)
        starts = np.flatnonzero(np.diff(block.episode, prepend=-1))
        lengths = np.diff(starts, append=len(block.episode))
        place = np.arange(len(block.episode)) - np.repeat(starts, lengths)
        # The action at place p of its episode is in the chunks that begin at p, p - 1, ... p - horizon + 1.
        if self._absolute.width:
            self._absolute.add(block.action[:, ~self._mask], np.minimum(place + 1, self._horizon))
        if self._relative.width:
            remaining = np.repeat(lengths, lengths) - place
            for ahead in range(min(self._horizon, int(lengths.max()))):
                begin = np.flatnonzero(remaining > ahead)
                self._relative.add(block.action[begin + ahead][:, self._mask] - block.state[begin][:, self._mask])

    def next_pass(self) -> None:
        """Ends the first pass."""
        for statistics in (self._states, self._absolute, self._relative):
            if statistics.width:
                statistics.next_pass()

    def result(self) -> dict[str, NormStats]:
        """Returns the statistics of `state` and `actions`."""
        values = {name: np.zeros(len(self._mask)) for name in ("mean", "std", "q01", "q99")}
        for part, where in ((self._absolute, ~self._mask), (self._relative, self._mask)):
            if part.width:
                result = msgspec.structs.asdict(part.result())
                for name, numbers in values.items():
                    numbers[where] = result[name]
        actions = NormStats(**{name: numbers.tolist() for name, numbers in values.items()})
        return {"state": self._states.result(), "actions": actions}


def _read(path: Path, num_episodes: int) -> Block:
    """Returns the steps of one file; those of an episode that is not listed yet are left out."""
    try:
        with pq.ParquetFile(path, memory_map=True) as file:
            table = file.read(columns=[features.STATE, features.ACTION, features.EPISODE_INDEX], use_threads=False)
    except (OSError, ValueError) as exc:
        raise DatasetError(f"Cannot read the states and actions of {path}: {exc}.") from exc
    episode = column_values(table, features.EPISODE_INDEX)
    state, action = (
        column_values(table, name).astype(np.float32).reshape(len(episode), -1)
        for name in (features.STATE, features.ACTION)
    )
    listed = episode < num_episodes
    return Block(state[listed], action[listed], episode[listed])


def _concatenated(parts: list[Block]) -> Block:
    if len({(part.state.shape[1], part.action.shape[1]) for part in parts if len(part.episode)}) > 1:
        raise DatasetError("Expected states and actions of one width in every file of the dataset.")
    filled = [part for part in parts if len(part.episode)]
    return Block(*(np.concatenate([getattr(part, name) for part in filled]) for name in ("state", "action", "episode")))


def _action_names(root: Path) -> list[str]:
    names = read_info(root, versions=VERSIONS)["features"][features.ACTION].get("names")
    names = names.get("motors") if isinstance(names, dict) else names
    if not names:
        raise DatasetError(f"{root} has no names of its action dimensions; which of them are joints is unknown.")
    return [str(name) for name in names]


def _report(stats: dict[str, NormStats]) -> Iterator[str]:
    for key, values in stats.items():
        for name, numbers in msgspec.structs.asdict(values).items():
            yield f"{key:8s}{name:6s}[{', '.join(f'{number:.4g}' for number in numbers)}]"
        still = [number for number, std in enumerate(values.std) if std < LEAST_SPREAD]
        if still:
            yield f"{key}: dimensions {still} hardly move (std below {LEAST_SPREAD}); training may diverge on them."


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    sys.exit(main(sys.argv[1:]))
