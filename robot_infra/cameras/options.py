"""Settings of one camera."""

import msgspec


class CameraConfig(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """One camera."""

    kind: str = "mjpeg"
    """`mjpeg`: a stream over HTTP. `lerobot`: any camera class of LeRobot, by `options`."""
    url: str = ""
    crop: list[int] = []
    """x, y, width and height of the part that is used, in pixels of the camera; empty: all."""
    max_age_s: float = 0.5
    """Older pictures are a fault."""
    frozen_after_s: float = 2.0
    """The same picture for so long is a fault; 0: not looked at (a picture without noise)."""
    options: dict = {}
