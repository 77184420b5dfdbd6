"""Whether the ranks of a job see the same data: on several machines each reads its own disk.

All ranks draw the same batch and assemble their own rows of it. With other data they would learn from something else
without a word, and a rank that lacks the replay would wait for ever. Machines that share no disk have replicas of the
replay (`learner.replica`): the same episodes in the same order, some of them a little later.
"""

import hashlib
import logging
import time
from collections.abc import Sequence

import numpy as np

from learner.replay.reader import ReplayDataset
from learner.trainer.ranks import Ranks
from serl_launcher.errors import DatasetError
from serl_launcher.files import write_atomic
from serl_launcher.run_directory import RunDirectory
from serl_launcher.status import read_status

logger = logging.getLogger(__name__)

_FILE = "ranks"
"""In the run's directory: written by the first rank, read by all."""
_ALIVE_S = 10.0
"""Age of a status from which on nobody keeps it up to date."""


def check_same_data(
    ranks: Ranks, run: RunDirectory, demonstrations: Sequence[ReplayDataset], *, learns_online: bool
) -> None:
    """Raises DatasetError where ranks hold other demonstrations, or where they learn online from no common replay.

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
        _check_replay(ranks, run)


def digest_of(dataset: ReplayDataset) -> int:
    """Returns a number that tells datasets with other episodes, labels or actions apart."""
    episodes, steps = dataset.episodes, dataset.steps
    digest = hashlib.sha256()
    for column in (episodes.length, episodes.outcome, steps.state, steps.action, steps.reward):
        digest.update(column.tobytes())
    return int.from_bytes(digest.digest()[:7], "big")


class EpisodeChain:
    """A number for every first n episodes of a replay that grows: the same where they are the same episodes."""

    def __init__(self, dataset: ReplayDataset) -> None:
        self._dataset = dataset
        self._digests = [0]

    def digest(self, count: int) -> int:
        """Returns the number of the first `count` episodes, by their ids and lengths; the dataset has that many."""
        while len(self._digests) <= count:
            episode = len(self._digests) - 1
            told = f"{self._digests[-1]} {self._dataset.episode_id(episode)} {self._dataset.episodes.length[episode]}"
            self._digests.append(int.from_bytes(hashlib.sha256(told.encode()).digest()[:7], "big"))
        return self._digests[count]


def _check_replay(ranks: Ranks, run: RunDirectory) -> None:
    """Raises DatasetError where a machine has neither the run's directory nor a replica of its replay."""
    is_shared = _sees_directory_of_first(ranks, run)
    has_replay = is_shared or _has_server(run)
    if not ranks.lowest_and_highest(int(has_replay))[0]:
        here = "is fine" if has_replay else "has neither"
        raise DatasetError(
            f"Expected every machine to see the run's directory {run.root} of the first one, or to have a replica of "
            f"its replay; this one {here}. Put output_dir on a disk that all machines share, or start `python -m "
            "learner.server algo=data_collection` with the same output_dir and unique_identifier on each of the others "
            "and `python -m learner.replica ip=<that machine>` on the first; see learner/README.md."
        )
    if not is_shared:
        logger.info("This machine does not share %s with the first; it reads its replica of the replay.", run.root)


def _has_server(run: RunDirectory) -> bool:
    """Returns whether a learner server runs that could take episodes."""
    told_s = (read_status(run.status("server")) or {}).get("time")
    return isinstance(told_s, float) and time.time() - told_s < _ALIVE_S


def _sees_directory_of_first(ranks: Ranks, run: RunDirectory) -> bool:
    path, token = run.root / _FILE, np.array([time.time_ns()])
    if ranks.is_first:
        run.root.mkdir(parents=True, exist_ok=True)
        write_atomic(path, str(token[0]).encode())
    [expected] = ranks.share(token)  # Nobody looks before it is written.
    try:
        return int(path.read_text()) == expected
    except FileNotFoundError:
        return False
