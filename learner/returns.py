"""What a chunk of steps is worth: the one place that decides when to bootstrap.

An episode that *terminated* is over: nothing follows, the discount is 0. One that was *truncated* (time limit,
operator's stop) goes on in the world: its last observation is bootstrapped from, the discount is gamma ** (steps).

Legend: B batch, H chunk horizon.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

from serl_launcher.types import Outcome


@dataclass(frozen=True, kw_only=True, slots=True)
class ChunkReturns:
    """Of the real steps of each chunk."""

    reward: Float[ndarray, " B"]
    """Sum of gamma ** i * reward_i, float32."""
    discount: Float[ndarray, " B"]
    """gamma ** (real steps), 0 where the episode terminated inside the chunk, float32."""
    is_terminal: Bool[ndarray, " B"]


def chunk_returns(
    reward: Float[ndarray, "B H"], is_terminal: Bool[ndarray, "B H"], is_pad: Bool[ndarray, "B H"], *, discount: float
) -> ChunkReturns:
    """Returns reward and discount of every chunk.

    Args:
        reward: Of each step.
        is_terminal: Where the episode terminated with the step; a truncated episode has none.
        is_pad: Steps behind the episode's end, whose other values do not count.
        discount: Gamma per step, in [0, 1].
    """
    horizon = reward.shape[1]
    powers = (discount ** np.arange(horizon + 1)).astype(np.float32)
    is_over = np.logical_or.reduce(is_terminal & ~is_pad, axis=1)
    return ChunkReturns(
        reward=(reward * ~is_pad * powers[:-1]).sum(axis=1, dtype=np.float32),
        discount=np.where(is_over, np.float32(0), powers[(~is_pad).sum(axis=1)]),
        is_terminal=is_over,
    )


def labelled_rewards(
    outcome: ndarray, last_step: ndarray, num_steps: int
) -> tuple[Float[ndarray, " N"], Bool[ndarray, " N"]]:
    """Returns rewards (float32) and terminations that follow from the labels of episodes alone.

    The last step of a success earns 1, everything else nothing. Success and failure end an episode; one that is aborted
    or not labelled is only cut off.

    Args:
        outcome: Label of each episode, `serl_launcher.types.Outcome` as str [E].
        last_step: Its last step, int64 [E].
        num_steps: Of all episodes, N.
    """
    reward, is_terminal = np.zeros(num_steps, np.float32), np.zeros(num_steps, bool)
    reward[last_step] = outcome == Outcome.SUCCESS
    is_terminal[last_step] = np.isin(outcome, (Outcome.SUCCESS, Outcome.FAILURE))
    return reward, is_terminal


def corrected_rewards(
    reward: Float[ndarray, " N"], is_terminal: Bool[ndarray, " N"], *, outcome: ndarray, last_step: ndarray
) -> tuple[Float[ndarray, " N"], Bool[ndarray, " N"]]:
    """Returns recorded rewards and terminations, with the last step of some episodes as their label has it.

    A success earns 1 there, or more where more was recorded; anything else earns nothing, or what it lost. Success and
    failure end an episode, others are cut off. A label given while the episode ran was recorded just so.

    Args:
        reward: Of each step, as recorded.
        is_terminal: Where a termination was recorded.
        outcome: Label of each episode to correct, `serl_launcher.types.Outcome` as str [J].
        last_step: Its last step, int64 [J].
    """
    if not len(last_step):
        return reward, is_terminal
    reward, is_terminal = reward.copy(), is_terminal.copy()
    recorded = reward[last_step]
    reward[last_step] = np.where(outcome == Outcome.SUCCESS, np.maximum(recorded, 1), np.minimum(recorded, 0))
    is_terminal[last_step] = np.isin(outcome, (Outcome.SUCCESS, Outcome.FAILURE))
    return reward, is_terminal


def returns_to_go(reward: Float[ndarray, " N"], episode: ndarray, *, discount: float) -> Float[ndarray, " N"]:
    """Returns the discounted sum of rewards from each step to the end of its episode, float32.

    Args:
        reward: In recording order.
        episode: Which episode each step is of; its steps lie together.
        discount: Gamma per step.
    """
    result = np.zeros(len(reward), np.float64)
    following = 0.0
    for step in range(len(reward) - 1, -1, -1):
        is_last = step == len(reward) - 1 or episode[step] != episode[step + 1]
        following = float(reward[step]) + (0.0 if is_last else discount * following)
        result[step] = following
    return result.astype(np.float32)
