"""What maps a robot's own dictionaries to the model's and back. Numpy only."""

from serl_launcher.transforms.group import Group, Transform, compose
from serl_launcher.transforms.pipeline import Pipeline
from serl_launcher.transforms.robots import RobotTransforms, robot_names, robot_transforms

__all__ = ["Group", "Pipeline", "RobotTransforms", "Transform", "compose", "robot_names", "robot_transforms"]
