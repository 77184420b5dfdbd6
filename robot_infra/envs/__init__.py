"""Environments: what an actor can drive, by name."""

from robot_infra.envs.build import build, build_operator, has_scripted_person

__all__ = ["build", "build_operator", "has_scripted_person"]
