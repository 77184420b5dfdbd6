"""What stands in for SAPIEN's materials; the tasks themselves are tried where ManiSkill is installed."""

import importlib
import sys
from types import ModuleType

import pytest

MODULE = "robot_infra.envs.maniskill_task"


def installed(monkeypatch: pytest.MonkeyPatch, material: type) -> ModuleType:
    """Installs a SAPIEN with this kind of material; returns its builder of robots."""
    names = (
        "sapien", "sapien.pysapien", "sapien.pysapien.render", "sapien.render", "sapien.wrapper",
        "sapien.wrapper.urdf_loader", "mani_skill", "mani_skill.envs",
    )  # fmt: skip
    for name in names:
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    for name in ("sapien.pysapien.render", "sapien.render", "sapien.wrapper.urdf_loader"):
        vars(sys.modules[name])["RenderMaterial"] = material
    monkeypatch.delitem(sys.modules, MODULE, raising=False)
    return sys.modules["sapien.wrapper.urdf_loader"]


class NoDevice:
    def __init__(self, **colours: object) -> None:
        raise RuntimeError("failed to find a rendering device")


def test_without_a_graphics_device_materials_are_plain_objects_everywhere(monkeypatch: pytest.MonkeyPatch):
    builder = installed(monkeypatch, NoDevice)
    importlib.import_module(MODULE)
    render = sys.modules["sapien.render"]
    assert builder.RenderMaterial is render.RenderMaterial is not NoDevice
    assert isinstance(builder.RenderMaterial(base_color=[1, 0, 0, 1]), render.RenderMaterial)
    monkeypatch.delitem(sys.modules, MODULE)


def test_with_a_graphics_device_nothing_is_replaced(monkeypatch: pytest.MonkeyPatch):
    class Material:
        pass

    builder = installed(monkeypatch, Material)
    importlib.import_module(MODULE)
    assert builder.RenderMaterial is Material
    monkeypatch.delitem(sys.modules, MODULE)
