"""Transforms are functions from dictionary to dictionary; a group holds those of the way in and of the way out.

A dictionary holds one un-batched sample. On the model's side its keys are:

    image         {slot: uint8 (height, width, 3)}
    image_mask    {slot: bool}, False where the robot lacks the camera
    state         float32 [S]
    prompt        str
    actions       float32 [H, A], in training and on the way out
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

Sample = Mapping[str, Any]
"""Values are arrays, texts, truth values or further mappings."""


class Transform(Protocol):
    """One step. It never writes into what it is given."""

    def __call__(self, sample: Sample) -> dict[str, Any]:
        """Returns the transformed sample."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Group:
    """What belongs together: `inputs` towards the model, `outputs` back, each in the order of application.

    Example:
        Group(inputs=(DeltaActions(mask),), outputs=(AbsoluteActions(mask),))
    """

    inputs: Sequence[Transform] = ()
    outputs: Sequence[Transform] = ()

    def push(self, inner: "Group") -> "Group":
        """Returns this group with `inner` nearer to the model: its inputs come last, its outputs first."""
        return Group(inputs=(*self.inputs, *inner.inputs), outputs=(*inner.outputs, *self.outputs))


def compose(transforms: Sequence[Transform]) -> Transform:
    """Returns the transform that applies all of them in order."""
    steps = tuple(transforms)

    def composed(sample: Sample) -> dict[str, Any]:
        result = dict(sample)
        for step in steps:
            result = step(result)
        return result

    return composed
