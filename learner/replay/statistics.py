"""Normalisation statistics of a policy's inputs and targets, from the scalar columns alone: no image is decoded.

Every chunk counts, whatever the size of the dataset; memory is bounded.

Legend: N steps, H chunk horizon, A action width, S state width.
"""

from collections.abc import Sequence

import msgspec
import numpy as np

from learner.replay.chunks import chunk_steps
from learner.replay.reader import ReplayDataset
from serl_launcher.errors import DatasetError
from serl_launcher.policies.exact_statistics import ExactStatistics

BLOCK_STEPS = 8192
"""Chunks that are in memory at once."""


def norm_stats(
    datasets: Sequence[ReplayDataset], horizon: int, delta_mask: np.ndarray | None = None
) -> dict[str, dict[str, list[float]]]:
    """Returns mean, std, q01 and q99 per dimension of the states and of the actions in whole chunks.

    Args:
        datasets: Their steps count alike; all of one robot.
        horizon: H; every real (not padded) action of the chunk that begins at a step counts.
        delta_mask: bool [A]; True where the policy predicts action minus the state at the chunk's first tick.

    Returns:
        {"state": {"mean": [S floats], "std": ..., "q01": ..., "q99": ...}, "actions": {... A floats}}.

    Raises:
        DatasetError: There is no step at all.
        ValueError: `delta_mask` is given and state and action are not of its width.
    """
    datasets = [dataset for dataset in datasets if dataset.num_steps]
    if not datasets:
        raise DatasetError("Expected at least one recorded step to compute normalisation statistics from, got none.")
    columns = datasets[0].steps
    if delta_mask is not None and not len(delta_mask) == columns.action.shape[-1] == columns.state.shape[-1]:
        raise ValueError(
            f"Expected delta_mask, state and action of one width, got {len(delta_mask)}, {columns.state.shape[-1]} and "
            f"{columns.action.shape[-1]}. Set policy.delta_actions=false for this robot."
        )
    states, actions = ExactStatistics(columns.state.shape[-1]), ExactStatistics(columns.action.shape[-1])
    for is_first_pass in (True, False):
        for dataset in datasets:
            states.add(dataset.steps.state)
            _add_chunks(actions, dataset, horizon, delta_mask)
        if is_first_pass:
            states.next_pass()
            actions.next_pass()
    return {"state": msgspec.structs.asdict(states.result()), "actions": msgspec.structs.asdict(actions.result())}


def _add_chunks(counted: ExactStatistics, dataset: ReplayDataset, horizon: int, delta_mask: np.ndarray | None) -> None:
    """Counts the real actions of the chunk that begins at every step."""
    columns, episodes = dataset.steps, dataset.episodes
    if delta_mask is None:
        # The action at place p of its episode is in the chunks that begin at p, p - 1, ... p - horizon + 1.
        place = np.arange(dataset.num_steps) - episodes.first_step[columns.episode]
        counted.add(dataset.targets, np.minimum(place + 1, horizon))
        return
    for begin in range(0, dataset.num_steps, BLOCK_STEPS):
        steps = np.arange(begin, min(begin + BLOCK_STEPS, dataset.num_steps))
        episode = columns.episode[steps]
        chunk, is_pad = chunk_steps(steps, episodes.first_step[episode] + episodes.length[episode] - 1, horizon)
        first_state = np.where(delta_mask, columns.state[steps], 0.0).astype(np.float32)
        counted.add((dataset.targets[chunk] - first_state[:, None, :])[~is_pad])
