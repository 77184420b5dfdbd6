"""Settings of the robot or simulator that an actor drives."""

from dataclasses import dataclass, field
from typing import Any

import msgspec

from serl_launcher.errors import ConfigError
from serl_launcher.specs import WorkspaceSpec


@dataclass(kw_only=True, slots=True)
class EnvironmentConfig:
    """One robot, real or simulated."""

    name: str = "sim_pnp"
    """Which environment `robot_infra.envs.build` makes."""
    hz: float = 10.0
    """Control rate in ticks per second."""
    realtime_factor: float = 1.0
    """Simulated seconds per second: a tick takes 1/(hz * realtime_factor) seconds. A robot has 1; a simulator may be
    faster; 0: as fast as it can."""
    max_speed: list[float] = field(default_factory=list)
    """Most that an action may change, in robot units per second: one number per action, one for all, or none."""
    max_acceleration: list[float] = field(default_factory=list)
    """Likewise per second squared."""
    max_jerk: list[float] = field(default_factory=list)
    """Likewise per second cubed."""
    max_jump: list[float] = field(default_factory=list)
    """An action that is further than this from the last command is a fault, in robot units: one number per action, one
    for all, or none."""
    workspace: dict[str, Any] = field(default_factory=dict)
    """The box that the tips of a robot's arms may not leave, in metres: `low`, `high`, and `arms` with the joints and
    Denavit-Hartenberg parameters of each (`serl_launcher.specs.WorkspaceSpec`). Empty: only bounds of joints count."""
    image_size: list[int] = field(default_factory=lambda: [64, 64])
    """Width and height of every camera image, in pixels."""
    image_keys: list[str] = field(default_factory=lambda: ["cam_high", "cam_left_wrist", "cam_right_wrist"])
    """Cameras, in the order in which the policy sees them."""
    image_encoding: str = "jpeg"
    """`jpeg`, `png` (lossless) or `raw` (lossless)."""
    image_encodings: dict[str, str] = field(default_factory=dict)
    """Cameras that are encoded otherwise, by their names in `image_keys`."""
    jpeg_quality: int = 95
    jpeg_subsampling: str = "420"
    """Resolution of colour: `420` half each way, as in every video; `444` full, where an object is a few pixels."""
    max_episode_length: int = 120
    """Ticks after which an episode is truncated."""
    prompts: list[str] = field(default_factory=list)
    """Instructions drawn at reset; empty: the environment's own."""
    save_video: bool = False
    """Whether the actor writes an MP4 per episode."""
    wrappers: list[dict[str, Any]] = field(default_factory=list)
    """What is put around the robot, innermost first: entries with a `name` (crop, gripper_penalty, history,
    relative_frame, rotation_state, segments) and the arguments of that wrapper."""
    options: dict[str, Any] = field(default_factory=dict)
    """Further settings, checked by the environment itself."""

    def __post_init__(self) -> None:
        if self.hz <= 0:
            raise ConfigError(f"environment.hz must be positive, got {self.hz}.")
        if self.realtime_factor < 0:
            raise ConfigError(f"environment.realtime_factor must be 0 or more, got {self.realtime_factor}.")
        if len(self.image_size) != 2 or min(self.image_size) < 8:
            raise ConfigError(f"environment.image_size must be [width, height] of 8 or more, got {self.image_size}.")
        if self.max_episode_length < 1:
            raise ConfigError(f"environment.max_episode_length must be positive, got {self.max_episode_length}.")
        self.workspace_spec()

    def workspace_spec(self) -> WorkspaceSpec | None:
        """Returns the described workspace; None where none is; raises ConfigError where it makes no sense."""
        if not self.workspace:
            return None
        try:
            return msgspec.convert(self.workspace, WorkspaceSpec)
        except msgspec.ValidationError as exc:
            raise ConfigError(f"environment.workspace: {exc}.") from exc
