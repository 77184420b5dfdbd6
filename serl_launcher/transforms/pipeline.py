"""The three stages between what a robot or a dataset says and what a model takes.

training     repack -> robot inputs -> normalize -> model inputs
acting in              robot inputs -> normalize -> model inputs
acting out   model outputs -> unnormalize -> robot outputs
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from serl_launcher.transforms.group import Group, Sample, Transform, compose
from serl_launcher.transforms.statistics import Kind, Normalize, Unnormalize, VectorStats


@dataclass(frozen=True, kw_only=True, slots=True)
class Pipeline:
    """All transforms of one robot with one model.

    Example:
        Pipeline(repack=Group(inputs=(aloha.REPACK,)), robot=robot_transforms("aloha").group("pi0"),
                 model=Group(inputs=(ResizeImages(224, 224), PadStatesAndActions(32))), stats=stats)
    """

    repack: Group = field(default_factory=Group)
    """For samples of a dataset; at inference the robot already speaks the names of its transform."""
    robot: Group = field(default_factory=Group)
    model: Group = field(default_factory=Group)
    stats: Mapping[str, VectorStats] = field(default_factory=dict)
    """Of `state` and `actions`, after the robot's stage; empty where the policy normalises by itself."""
    kind: Kind = "zscore"
    default_prompt: str | None = None

    def from_dataset(self, sample: Sample) -> dict[str, Any]:
        """Returns a training sample for the model."""
        return self.from_robot(compose(self.repack.inputs)(sample))

    def from_robot(self, observation: Sample) -> dict[str, Any]:
        """Returns an observation for the model. The prompt is filled in first, so that the robot's stage sees one."""
        if self.default_prompt is not None and "prompt" not in observation:
            observation = {**observation, "prompt": self.default_prompt}
        normalize: tuple[Transform, ...] = (Normalize(stats=self.stats, kind=self.kind),) if self.stats else ()
        return compose((*self.robot.inputs, *normalize, *self.model.inputs))(observation)

    def to_robot(self, output: Sample) -> dict[str, Any]:
        """Returns what the robot executes, from the model's `actions` and the `state` that it was given."""
        unnormalize: tuple[Transform, ...] = (Unnormalize(stats=self.stats, kind=self.kind),) if self.stats else ()
        return compose((*self.model.outputs, *unnormalize, *self.robot.outputs))(output)

    def to_dataset(self, output: Sample) -> dict[str, Any]:
        """Returns the robot's actions under the names of the dataset, where the repack stage has a way out."""
        return compose(self.repack.outputs)(self.to_robot(output))
