"""The single home of what a robot looks like: key names, shapes, dtypes, bounds, units, rate."""

import hashlib
from typing import Literal

import msgspec
import numpy as np

ImageEncoding = Literal["jpeg", "png", "raw"]
Subsampling = Literal["420", "422", "444"]


class CameraSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One camera. Images are uint8, (height, width, 3), RGB."""

    name: str
    height: int
    width: int
    encoding: ImageEncoding = "jpeg"
    """How its images travel and are stored. `png` and `raw` are lossless; `raw` is stored as PNG."""
    quality: int = 95
    """JPEG quality, 1..100; ignored by the lossless encodings."""
    subsampling: Subsampling = "420"
    """How JPEG keeps colour: `420` half the resolution each way, as every video does; `444` all of it."""

    def __post_init__(self) -> None:
        if self.height < 1 or self.width < 1:
            raise ValueError(f"Camera {self.name!r} needs a positive size, got {self.height}x{self.width}.")
        if not 1 <= self.quality <= 100:
            raise ValueError(f"Camera {self.name!r}: quality must lie in [1, 100], got {self.quality}.")

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of one decoded image, (height, width, 3)."""
        return (self.height, self.width, 3)


class ArmChain(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """Joints of one arm from base to tip.

    Example:
        ArmChain(joints=("j0", "j1"), links=((0.3, 0.0, 0.0, 0.0), (0.2, 0.0, 0.0, 0.0)))
    """

    joints: tuple[str, ...]
    """Action names, from the base on."""
    links: tuple[tuple[float, float, float, float], ...]
    """Denavit-Hartenberg parameters per joint: a in metres, alpha in radians, d in metres, offset in radians."""
    base: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    """Where it stands: x, y, z in metres, and its turn about the vertical axis in radians."""
    to_rad: float = 1.0
    """What turns the joints' unit into radians: 0.017453 for degrees."""

    def __post_init__(self) -> None:
        if not self.joints or len(self.joints) != len(self.links):
            raise ValueError(f"Expected a link for each of the joints {self.joints}, got {len(self.links)} links.")


class WorkspaceSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The box that the tip of no arm may leave, in metres, in the frame in which the bases of the arms are given."""

    low: tuple[float, float, float]
    high: tuple[float, float, float]
    arms: tuple[ArmChain, ...]

    def __post_init__(self) -> None:
        if not self.arms or any(not low < high for low, high in zip(self.low, self.high, strict=True)):
            raise ValueError(f"Expected arms, and low below high; got {len(self.arms)} arms, {self.low}, {self.high}.")


class RobotSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """What an actor and a learner must agree on before they exchange a step.

    Example:
        RobotSpec(name="sim_pnp", cameras=(CameraSpec(name="cam_high", height=64, width=64),),
                  state_names=("left_j0", ...), action_names=("left_j0", ...),
                  action_low=(-3.14, ...), action_high=(3.14, ...), control_hz=10.0)
    """

    name: str
    cameras: tuple[CameraSpec, ...]
    state_names: tuple[str, ...]
    """One name per state dimension; units: radians for joints, [0, 1] for grippers (1 is open)."""
    action_names: tuple[str, ...]
    action_low: tuple[float, ...]
    action_high: tuple[float, ...]
    control_hz: float
    # Fields below may be absent: what is at its default is not encoded, so that older recordings keep their digest.
    action_units: tuple[str, ...] = ()
    """One unit per action, e.g. `rad` or `1`; empty: as for `state_names`."""
    max_speed: tuple[float, ...] = ()
    """Most that each action may change per second, in its unit: one for all, or one per action; empty: not limited."""
    max_acceleration: tuple[float, ...] = ()
    """Likewise per second squared."""
    max_jerk: tuple[float, ...] = ()
    """Likewise per second cubed."""
    workspace: WorkspaceSpec | None = None
    """Where the tips of its arms may be; None: only the bounds of the actions count."""
    max_jump: tuple[float, ...] = ()
    """An action that is further than this from the last command is a fault: a chunk that does not continue where the
    robot is. One for all, or one per action, in its unit; empty: any action is followed as far as the limits allow."""

    def __post_init__(self) -> None:
        if not len(self.action_names) == len(self.action_low) == len(self.action_high):
            raise ValueError(
                f"Robot {self.name!r}: {len(self.action_names)} action names, {len(self.action_low)} lower and "
                f"{len(self.action_high)} upper bounds; expected as many of each."
            )
        if len({camera.name for camera in self.cameras}) != len(self.cameras):
            raise ValueError(f"Robot {self.name!r} has two cameras of one name: {self.camera_names}.")
        if self.control_hz <= 0:
            raise ValueError(f"Robot {self.name!r}: control_hz must be positive, got {self.control_hz}.")
        for what in ("action_units", "max_speed", "max_acceleration", "max_jerk", "max_jump"):
            if len(getattr(self, what)) not in (0, 1, self.action_dim):
                raise ValueError(
                    f"Robot {self.name!r}: {what} needs no entry, one, or {self.action_dim}; got {getattr(self, what)}."
                )

    @property
    def state_dim(self) -> int:
        """Width of the state vector, S."""
        return len(self.state_names)

    @property
    def action_dim(self) -> int:
        """Width of the action vector, A."""
        return len(self.action_names)

    @property
    def camera_names(self) -> tuple[str, ...]:
        """Names of the cameras in their fixed order."""
        return tuple(camera.name for camera in self.cameras)

    def camera(self, name: str) -> CameraSpec:
        """Returns the camera of that name; raises KeyError that lists the known ones."""
        for camera in self.cameras:
            if camera.name == name:
                return camera
        raise KeyError(f"Robot {self.name!r} has no camera {name!r}; it has {list(self.camera_names)}.")

    def action_bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns the lower and upper action bounds as float32 [A]."""
        return np.asarray(self.action_low, np.float32), np.asarray(self.action_high, np.float32)

    def digest(self) -> str:
        """Returns a SHA-256 (hex) over every field; two robots are equal exactly when it is."""
        return hashlib.sha256(msgspec.msgpack.encode(self, order="deterministic")).hexdigest()
