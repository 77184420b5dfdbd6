"""Names and structure of samples: paths with slashes, renaming, texts in their many forms."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from serl_launcher.transforms.group import Sample

Structure = Mapping[str, Any]
"""Leaves are paths like `observation/images/top`."""


def flatten(sample: Sample, prefix: str = "") -> dict[str, Any]:
    """Returns the leaves of nested mappings under their paths, joined by slashes."""
    flat: dict[str, Any] = {}
    for key, value in sample.items():
        path = f"{prefix}{key}"
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{path}/")
        else:
            flat[path] = value
    return flat


def require(sample: Sample, key: str, robot: str) -> Any:  # Any: values of samples have many types.
    """Returns `sample[key]`; raises KeyError that says what the robot's transform needs and what came."""
    if key not in sample:
        raise KeyError(f"{robot} expects {key!r} in the observation, got {sorted(sample)}.")
    return sample[key]


def by_path(sample: Sample) -> dict[str, Any]:
    """Returns the leaves under paths with slashes, whether a robot nests its names or joins them by slashes or dots."""
    return {path.replace(".", "/"): value for path, value in flatten(sample).items()}


def require_one(flat: Sample, paths: Sequence[str], robot: str) -> Any:  # Any: values of samples have many types.
    """Returns the value of the first path that is there; raises KeyError where none is."""
    for path in paths:
        if path in flat:
            return flat[path]
    raise KeyError(
        f"{robot} expects {paths[0]!r} in the observation (or one of {list(paths[1:])}), got {sorted(flat)}."
    )


def text_of(value: object) -> str:
    """Returns a prompt that came as text, as UTF-8 bytes, or as a numpy array of one such element."""
    if isinstance(value, np.ndarray):
        if value.size != 1:
            raise ValueError(f"Expected one prompt, got an array of shape {value.shape}.")
        value = value.reshape(()).item()
    if isinstance(value, bytes):
        value = value.decode("utf-8")
    if not isinstance(value, str):
        raise TypeError(f"Expected a prompt as text, got {type(value).__name__}.")
    return str(value)


def training_fields(sample: Sample) -> dict[str, Any]:
    """Returns `actions` and `prompt` as the model takes them, where the sample has them."""
    fields: dict[str, Any] = {}
    if "actions" in sample:
        fields["actions"] = np.asarray(sample["actions"], np.float32)
    if "prompt" in sample:
        fields["prompt"] = text_of(sample["prompt"])
    return fields


@dataclass(frozen=True, slots=True)
class Repack:
    """Gives a dataset's sample the structure that the robot's transform expects; other keys are dropped.

    Example:
        Repack({"images": {"cam_high": "observation.images.top"}, "state": "observation.state", "actions": "action"})
    """

    structure: Structure

    def __call__(self, sample: Sample) -> dict[str, Any]:
        """Returns the new structure; raises KeyError that names a path which is missing."""
        return self._pick(self.structure, flatten(sample))

    def _pick(self, structure: Structure, flat: dict[str, Any]) -> dict[str, Any]:
        picked: dict[str, Any] = {}
        for key, source in structure.items():
            if isinstance(source, Mapping):
                picked[key] = self._pick(source, flat)
            elif source in flat:
                picked[key] = flat[source]
            else:
                raise KeyError(f"Expected {source!r} (for {key!r}) in the sample, got {sorted(flat)}.")
        return picked
