"""The next command of a robot whose speed, acceleration and jerk are limited, inside its bounds and workspace.

Legend: K candidate accelerations, A action. One control tick is the unit of time.

The invariant: from the present motion the robot can brake to rest without leaving any limit. A candidate for the next
tick is admitted only where the motion after it can brake likewise; braking itself is always such a candidate, so by
induction no stream of wishes ever leads out of the limits. Among the admitted candidates that one is taken whose
resting place after braking is nearest to the wish; a wish that moves is met where that needs no sudden change of
pace. (Safe fall-back trajectories: Lozano-Perez and others; here in
discrete time, checked by simulation of the braking, so that no closed form has to be trusted.)

Positions are those that are sent, rounded to float32: a second gate with the same limits, on the robot's own computer,
computes with the very same numbers and so lets everything through unchanged.
"""

from dataclasses import dataclass

import numpy as np

from robot_infra.safety.limits import SafetyLimits

NUM_CANDIDATES = 9
TOLERANCE = 1e-6
"""Limits are kept to this, or to four float32 roundings where those are coarser (degrees, millimetres)."""
MAX_BRAKING_TICKS = 400
SHARES = (0.5, 0.25, 0.125)
"""Parts of the wanted acceleration that are tried where the whole leads out of the workspace."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Motion:
    """Commanded position, change and change of the change per tick, float64 [A] each.

    Example:
        Motion.at_rest(np.zeros(14))
    """

    position: np.ndarray
    velocity: np.ndarray
    acceleration: np.ndarray

    @classmethod
    def at_rest(cls, position: np.ndarray) -> "Motion":
        """Returns the motion of a robot that stands at a position."""
        still = np.zeros(position.shape)
        return cls(position=_sent(position), velocity=still, acceleration=still)

    @property
    def is_resting(self) -> bool:
        """Whether the robot neither moves nor begins to."""
        return not (self.velocity.any() or self.acceleration.any())


@dataclass(frozen=True, kw_only=True, slots=True)
class _Caps:
    """Finite limits that are never tighter than the configured ones."""

    low: np.ndarray
    high: np.ndarray
    speed: np.ndarray
    acceleration: np.ndarray
    jerk: np.ndarray
    tolerance: np.ndarray


def next_motion(
    wish: np.ndarray, motion: Motion, limits: SafetyLimits, *, last_wish: np.ndarray | None = None
) -> Motion:
    """Returns the motion after the next tick: as near to the wish [A] as the limits allow.

    A robot that stands outside of its bounds may move back in, and no further out.

    Args:
        wish: Where the robot is to be after this tick.
        motion: How it moves now.
        limits: What it allows.
        last_wish: The wish of the tick before; a stream of wishes that keeps the limits is followed exactly.
    """
    if not limits.is_smooth and limits.workspace is None:
        reachable = np.clip(wish, motion.position - limits.max_change, motion.position + limits.max_change)
        position = np.clip(reachable, np.minimum(limits.low, motion.position), np.maximum(limits.high, motion.position))
        return Motion.at_rest(position)
    caps = _caps(motion, limits)
    pace = np.zeros(wish.shape) if last_wish is None else wish.astype(np.float64) - last_wish
    wanted = _best_acceleration(wish.astype(np.float64), pace, motion, caps)
    if limits.workspace is not None:
        wanted = _inside_workspace(wanted, motion, caps, limits)
    return _advanced(motion, wanted)


def braking_motion(motion: Motion, limits: SafetyLimits) -> Motion:
    """Returns the motion after one tick of braking; at once at rest where acceleration is not limited."""
    if not limits.is_smooth and limits.workspace is None:
        return Motion.at_rest(motion.position)
    return _advanced(motion, _braking(motion.velocity, motion.acceleration, _caps(motion, limits)))


def executed_motion(executed: np.ndarray, motion: Motion, limits: SafetyLimits) -> Motion:
    """Returns the motion of a robot that made this [A] of the last command, and so moves otherwise than it was told."""
    if not limits.is_smooth and limits.workspace is None:
        return Motion.at_rest(executed)
    position = _sent(executed)
    velocity = position - (motion.position - motion.velocity)
    acceleration = velocity - (motion.velocity - motion.acceleration)
    # Beyond its limit it would leave the next command no choice that keeps the limit on jerk.
    acceleration = np.clip(acceleration, -limits.max_acceleration, limits.max_acceleration)
    return Motion(position=position, velocity=velocity, acceleration=acceleration)


def _caps(motion: Motion, limits: SafetyLimits) -> _Caps:
    """Returns finite limits: nobody needs to cross the bounds in less than a tick, or turn round in less than one."""
    tolerance = np.maximum(TOLERANCE, 4.0 * np.spacing(np.abs(motion.position).astype(np.float32)))
    low = np.minimum(limits.low - tolerance, motion.position)
    high = np.maximum(limits.high + tolerance, motion.position)
    speed = np.minimum(limits.max_change, np.maximum(high - low, 1e-6)).astype(np.float64)
    acceleration = np.minimum(limits.max_acceleration, 2 * speed)
    jerk = np.minimum(limits.max_jerk, 2 * acceleration)
    return _Caps(low=low, high=high, speed=speed, acceleration=acceleration, jerk=jerk, tolerance=tolerance)


def _sent(position: np.ndarray) -> np.ndarray:
    """Returns the position as it is sent: rounded to float32, float64 again."""
    return position.astype(np.float32).astype(np.float64)


def _sendable(motion: Motion, acceleration: np.ndarray) -> np.ndarray:
    """Returns the accelerations [..., A] that lead to the positions that are sent."""
    return _sent(motion.position + motion.velocity + acceleration) - motion.position - motion.velocity


def _advanced(motion: Motion, acceleration: np.ndarray) -> Motion:
    position = _sent(motion.position + motion.velocity + acceleration)
    velocity = position - motion.position
    return Motion(position=position, velocity=velocity, acceleration=velocity - motion.velocity)


def _braking(velocity: np.ndarray, acceleration: np.ndarray, caps: _Caps) -> np.ndarray:
    """Returns the acceleration of this tick that brings a motion to rest soonest, [..., A].

    On the curve returned by `_stopping` the rest of the braking lowers the acceleration by one jerk per tick and ends
    with velocity and acceleration zero together; off the curve the way back to it is taken at full jerk.
    """
    wanted = np.clip(_stopping(velocity, caps.jerk), acceleration - caps.jerk, acceleration + caps.jerk)
    return np.clip(wanted, -caps.acceleration, caps.acceleration)


def _stopping(velocity: np.ndarray, jerk: np.ndarray) -> np.ndarray:
    """Returns the acceleration from which jerk alone ends the velocity: |v| = n a - j n (n - 1) / 2 in n ticks."""
    speed = np.abs(velocity)
    num_ticks = np.maximum(np.ceil((np.sqrt(1 + 8 * speed / jerk) - 1) / 2), 1)
    return -np.sign(velocity) * (speed + jerk * num_ticks * (num_ticks - 1) / 2) / num_ticks


def _rest(motion: Motion, acceleration: np.ndarray, caps: _Caps) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Brakes after one tick of each acceleration [K, A].

    Returns:
        Where the robot comes to rest [K, A], whether it keeps its limits on the way there [K, A], and every position
        on that way [T, K, A].
    """
    velocity = motion.velocity + acceleration
    position = motion.position + velocity
    is_kept, path = np.ones(position.shape, bool), [position]
    for _ in range(MAX_BRAKING_TICKS):
        is_kept &= (np.abs(velocity) <= caps.speed + caps.tolerance) & (position >= caps.low)
        is_kept &= position <= caps.high
        if not (velocity.any() or acceleration.any()):
            return position, is_kept, np.stack(path)
        acceleration = _braking(velocity, acceleration, caps)
        velocity = velocity + acceleration
        position = position + velocity
        path.append(position)
    return position, np.zeros(position.shape, bool), np.stack(path)


def _best_acceleration(wish: np.ndarray, pace: np.ndarray, motion: Motion, caps: _Caps) -> np.ndarray:
    """Returns the admitted acceleration [A] that meets the moving wish, or after which braking ends nearest to it."""
    braking = _braking(motion.velocity, motion.acceleration, caps)
    low = np.maximum(motion.acceleration - caps.jerk, -caps.acceleration)
    high = np.minimum(motion.acceleration + caps.jerk, caps.acceleration)
    candidates = _sendable(motion, low + (high - low) * np.linspace(0, 1, NUM_CANDIDATES)[:, None])
    places, is_kept, _ = _rest(motion, candidates, caps)
    exact = _sendable(motion, _interpolated(wish, candidates, places))
    exact_place, exact_kept, _ = _rest(motion, exact[None], caps)
    braking_place, _, _ = _rest(motion, braking[None], caps)
    candidates = np.concatenate([exact[None], braking[None], candidates])
    places = np.concatenate([exact_place, braking_place, places])
    is_kept = np.concatenate([exact_kept, np.ones((1, len(wish)), bool), is_kept])
    misses = np.where(is_kept, np.abs(places - wish), np.inf)
    best = np.take_along_axis(candidates, np.argmin(misses, axis=0)[None], axis=0)[0]
    direct = _sendable(motion, np.clip(wish - motion.position - motion.velocity, low, high))
    _, direct_kept, _ = _rest(motion, direct[None], caps)
    velocity = motion.velocity + direct
    meets = np.abs(motion.position + velocity - wish) <= caps.tolerance
    meets &= direct_kept[0] & (np.abs(velocity - pace) <= caps.acceleration + caps.tolerance)
    return np.where(meets, direct, best)


def _interpolated(wish: np.ndarray, candidates: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Returns per joint the acceleration whose resting place would be the wish; places grow with acceleration."""
    above = np.clip((places < wish).sum(axis=0), 1, NUM_CANDIDATES - 1)[None]
    place, place_below = np.take_along_axis(places, above, 0)[0], np.take_along_axis(places, above - 1, 0)[0]
    upper, lower = np.take_along_axis(candidates, above, 0)[0], np.take_along_axis(candidates, above - 1, 0)[0]
    share = np.clip((wish - place_below) / np.maximum(place - place_below, 1e-12), 0, 1)
    return lower + share * (upper - lower)


def _inside_workspace(wanted: np.ndarray, motion: Motion, caps: _Caps, limits: SafetyLimits) -> np.ndarray:
    """Returns the largest share of the wanted acceleration that keeps the braking path in the workspace."""
    braking = _braking(motion.velocity, motion.acceleration, caps)
    for wish in (wanted, *(braking + share * (wanted - braking) for share in SHARES)):
        acceleration = _sendable(motion, wish)
        _, is_kept, path = _rest(motion, acceleration[None], caps)
        if is_kept.all() and _is_inside(path[:, 0], motion.position, limits):
            return acceleration
    return braking


def _is_inside(path: np.ndarray, now: np.ndarray, limits: SafetyLimits) -> bool:
    """Whether all positions [T, A] keep the robot's points in the box, or no further out of it than they are now."""
    workspace = limits.workspace
    assert workspace is not None, "Only called where there is a workspace."
    here = workspace.points(now[None])[0]
    low = np.minimum(workspace.low - TOLERANCE, here)
    high = np.maximum(workspace.high + TOLERANCE, here)
    points = workspace.points(path)
    return bool(((points >= low) & (points <= high)).all())
