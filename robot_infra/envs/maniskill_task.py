"""ManiSkill's tasks, also on a machine without a graphics device; importing this module registers their ids.

SAPIEN, their engine, describes what things look like by materials that live on a graphics device, and ManiSkill makes
them even where nothing is drawn (`render_backend: none`). Where there is no such device, materials are replaced by
plain objects that nobody looks at: physics and state are the same, pictures cannot be had.
"""

import importlib
import logging
from types import ModuleType

logger = logging.getLogger(__name__)

HOLDERS = ("sapien.pysapien.render", "sapien.render", "sapien.wrapper.urdf_loader")
"""Modules that know materials and textures by name."""


class PlainMaterial:
    """Takes what a material or texture is made of, and forgets it."""

    def __init__(self, *_: object, **__: object) -> None:
        pass


def stand_in_materials() -> bool:
    """Replaces materials where there is no graphics device; returns whether that was needed.

    Raises:
        ImportError: SAPIEN is not installed.
    """
    render = importlib.import_module("sapien.render")
    try:
        render.RenderMaterial()
    except RuntimeError as exc:
        logger.info("No graphics device (%s): ManiSkill has no pictures here, only its state.", exc)
    else:
        return False
    for holder in HOLDERS:
        _replace(importlib.import_module(holder))
    return True


def _replace(module: ModuleType) -> None:
    for name in ("RenderMaterial", "RenderTexture2D"):
        if hasattr(module, name):
            setattr(module, name, PlainMaterial)


stand_in_materials()
importlib.import_module("mani_skill.envs")
