"""Whether the ranks of a job see the same data: on several machines each reads its own disk.

All ranks draw the same batch and assemble their own rows of it. With other data they would learn from something else
without a word, and a rank that lacks the replay would wait for ever.
"""

import hashlib
import time
from collections.abc import Sequence

from learner.replay.reader import ReplayDataset
from learner.trainer.ranks import Ranks
from serl_launcher.errors import DatasetError
from serl_launcher.files import write_atomic
from serl_launcher.run_directory import RunDirectory

_FILE = "ranks"
"""In the run's directory: written by the first rank, read by all."""


def check_same_data(
    ranks: Ranks, run: RunDirectory, demonstrations: Sequence[ReplayDataset], *, learns_online: bool
) -> None:
    """Raises DatasetError where ranks hold other demonstrations, or where they learn online and share no directory.

    Every rank calls it.
    """
    if ranks.count == 1:
        return
    for dataset in demonstrations:
        lowest, highest = ranks.lowest_and_highest(digest_of(dataset))
        if lowest != highest:
            raise DatasetError(
                f"Expected the same demonstrations on every machine, but {dataset.root} has other episodes, labels or "
                f"actions elsewhere (here: {dataset.num_episodes} episodes, {dataset.num_steps} steps). Copy it anew."
            )
    if learns_online:
        _check_same_directory(ranks, run)


def digest_of(dataset: ReplayDataset) -> int:
    """Returns a number that tells datasets with other episodes, labels or actions apart."""
    episodes, steps = dataset.episodes, dataset.steps
    digest = hashlib.sha256()
    for column in (episodes.length, episodes.outcome, steps.state, steps.action, steps.reward):
        digest.update(column.tobytes())
    return int.from_bytes(digest.digest()[:7], "big")


def _check_same_directory(ranks: Ranks, run: RunDirectory) -> None:
    path = run.root / _FILE
    if ranks.is_first:
        run.root.mkdir(parents=True, exist_ok=True)
        write_atomic(path, str(time.time_ns()).encode())
    ranks.lowest_and_highest(0)  # Nobody looks before it is written.
    try:
        seen = int(path.read_text())
    except FileNotFoundError:
        seen = 0
    lowest, highest = ranks.lowest_and_highest(seen)
    if lowest != highest:
        raise DatasetError(
            f"Expected every machine to see the run's directory {run.root}, because what robots record arrives there "
            "and all ranks learn from it. Put output_dir on a disk that all of them share, or train on one machine."
        )
