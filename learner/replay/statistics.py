"""Normalisation statistics of a policy's inputs and targets, from the scalar columns alone: no image is decoded.

Legend: N steps, H chunk horizon, A action width, S state width.
"""

from collections.abc import Sequence

import numpy as np

from learner.replay.chunks import chunk_steps
from learner.replay.reader import ReplayDataset
from serl_launcher.errors import DatasetError

MAX_CHUNKS = 50_000
"""Of a larger dataset, as many evenly spaced chunks are used."""


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
    stride = max(1, -(-sum(dataset.num_steps for dataset in datasets) // MAX_CHUNKS))
    states = np.concatenate([dataset.steps.state for dataset in datasets])
    actions = np.concatenate([_chunk_actions(dataset, horizon, delta_mask, stride) for dataset in datasets])
    return {"state": _summary(states), "actions": _summary(actions)}


def _chunk_actions(dataset: ReplayDataset, horizon: int, delta_mask: np.ndarray | None, stride: int) -> np.ndarray:
    """Returns the real actions of every stride-th chunk, float32 [chunks * H or fewer, A]."""
    columns, episodes = dataset.steps, dataset.episodes
    steps = np.arange(0, dataset.num_steps, stride)
    episode = columns.episode[steps]
    chunk, is_pad = chunk_steps(steps, episodes.first_step[episode] + episodes.length[episode] - 1, horizon)
    actions = dataset.targets[chunk]
    if delta_mask is not None:
        mask = np.asarray(delta_mask, bool)
        if not len(mask) == actions.shape[-1] == columns.state.shape[-1]:
            raise ValueError(
                f"Expected delta_mask, state and action of one width, got {len(mask)}, {columns.state.shape[-1]} and "
                f"{actions.shape[-1]}. Set policy.delta_actions=false for this robot."
            )
        actions = actions - np.where(mask, columns.state[steps], 0.0).astype(np.float32)[:, None, :]
    return actions[~is_pad]


def _summary(values: np.ndarray) -> dict[str, list[float]]:
    """Returns the statistics per column of float32 [rows, width]."""
    q01, q99 = np.quantile(values, [0.01, 0.99], axis=0)
    return {
        "mean": values.mean(axis=0, dtype=np.float64).tolist(),
        "std": values.std(axis=0, dtype=np.float64).tolist(),
        "q01": q01.astype(np.float64).tolist(),
        "q99": q99.astype(np.float64).tolist(),
    }
