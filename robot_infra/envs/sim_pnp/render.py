"""Cameras of `sim_pnp`, drawn in software.

Points are projected by a pinhole; shapes are filled at twice the size, then reduced.
"""

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from robot_infra.envs.sim_pnp import kinematics
from robot_infra.envs.sim_pnp.scenes import Colour, Thing
from robot_infra.envs.sim_pnp.world import NUM_ARMS, OBJECT_SIZE_M, PLACE_RADIUS_M, World

SUPERSAMPLING = 2
NEAR_M = 0.015
ARM_COLOURS: tuple[Colour, Colour] = ((70, 72, 78), (88, 86, 82))
FINGER_COLOURS: tuple[Colour, Colour] = ((20, 20, 22), (28, 26, 24))


def _ring(num_points: int, radius: float, phase: float) -> np.ndarray:
    angles = phase + 2 * np.pi * np.arange(num_points) / num_points
    return radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)


OUTLINES = {
    "cube": _ring(4, OBJECT_SIZE_M / np.sqrt(2), np.pi / 4),
    "cylinder": _ring(10, OBJECT_SIZE_M / 2, 0.0),
    "prism": _ring(3, OBJECT_SIZE_M / 1.5, np.pi / 2),
    "plate": _ring(16, PLACE_RADIUS_M, 0.0),
    "tray": _ring(4, PLACE_RADIUS_M * 1.2, np.pi / 4),
}


@dataclass(slots=True)
class Camera:
    """A pinhole camera."""

    position: np.ndarray
    axes: np.ndarray
    """[3, 3]: rows are right, up and forward in the world frame."""
    field_of_view_rad: float

    @classmethod
    def looking(cls, position: np.ndarray, forward: np.ndarray, up: np.ndarray, field_of_view_rad: float) -> "Camera":
        """Returns a camera at `position` [3] that looks along `forward` [3]."""
        forward = forward / np.linalg.norm(forward)
        right = np.cross(forward, up)
        right /= np.linalg.norm(right)
        return cls(position, np.stack([right, np.cross(right, forward), forward]), field_of_view_rad)

    def project(self, points: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """Returns pixel x, y and depth in metres, [N, 3], of world points [N, 3] in an image of (width, height)."""
        local = (points - self.position) @ self.axes.T
        depth = np.maximum(local[:, 2], 1e-6)
        focal = 0.5 * min(size) / np.tan(self.field_of_view_rad / 2)
        return np.stack(
            [size[0] / 2 + focal * local[:, 0] / depth, size[1] / 2 - focal * local[:, 1] / depth, local[:, 2]], axis=1
        )


HIGH_CAMERA = Camera.looking(
    np.array([0.0, 0.08, 0.78]), np.array([0.0, 0.17, -1.0]), np.array([0.0, 1.0, 0.0]), np.deg2rad(52)
)
SCENE_CAMERA = Camera.looking(
    np.array([0.0, -0.42, 0.75]), np.array([0.0, 0.80, -0.95]), np.array([0.0, 1.0, 0.5]), np.deg2rad(52)
)


def wrist_camera(joints: np.ndarray, base: np.ndarray) -> Camera:
    """Returns the camera on a hand: behind the fingers, looking past them."""
    pitch = joints[1] + joints[2] + joints[3]
    outward_xy, sideways_xy = kinematics.planar_axes(joints[0])
    outward = np.array([*outward_xy, 0.0])
    hand = np.cos(pitch) * outward + np.array([0.0, 0.0, np.sin(pitch)])
    normal = -np.sin(pitch) * outward + np.array([0.0, 0.0, np.cos(pitch)])
    normal = np.cos(joints[4]) * normal + np.sin(joints[4]) * np.array([*sideways_xy, 0.0])
    tip = kinematics.tip_position(joints, base)
    return Camera.looking(tip - 0.09 * hand - 0.05 * normal, hand + 0.45 * normal, normal, np.deg2rad(84))


@dataclass(slots=True)
class _Shape:
    """A polygon (width_m is 0) or a line: points `start..stop` of the drawing."""

    start: int
    stop: int
    colour: Colour
    width_m: float


class Drawing:
    """Everything visible, as world points and shapes from back to front. Made once per tick, seen by every camera."""

    def __init__(self, world: World) -> None:
        self._light = world.scene.brightness
        self._background = self._lit(world.scene.table)
        self._points: list[np.ndarray] = []
        self._shapes: list[_Shape] = []
        self._num_points = 0
        for number, place in enumerate(world.scene.places):
            self._add_place(place, world.scene.place_positions[number])
        for number in np.argsort(world.objects[:, 2]):
            self._add_object(world.scene.objects[number], world.objects[number], world.scene.table)
        for arm in range(NUM_ARMS):
            self._add_arm(world, arm)
        self._all_points = np.concatenate(self._points)

    def seen_by(self, camera: Camera, size: tuple[int, int]) -> np.ndarray:
        """Returns what a camera sees, uint8 (height, width, 3), for a size (width, height) in pixels."""
        full = (size[0] * SUPERSAMPLING, size[1] * SUPERSAMPLING)
        image = Image.new("RGB", full, self._background)
        pen = ImageDraw.Draw(image)
        projected = camera.project(self._all_points, full)
        depths = projected[:, 2]
        pixels = projected[:, :2].ravel().tolist()
        focal = 0.5 * min(full) / np.tan(camera.field_of_view_rad / 2)
        for shape in self._shapes:
            nearest = depths[shape.start : shape.stop].min()
            outline = pixels[2 * shape.start : 2 * shape.stop]
            if shape.width_m == 0.0 and nearest > NEAR_M:
                pen.polygon(outline, fill=shape.colour)
            elif shape.width_m > 0.0 and nearest > 3 * NEAR_M:
                width = round(shape.width_m * focal / depths[shape.start : shape.stop].mean())
                pen.line(outline, fill=shape.colour, width=max(1, width))
        return np.asarray(image.reduce(SUPERSAMPLING))

    def _add_place(self, place: Thing, position: np.ndarray) -> None:
        self._add(_at_height(OUTLINES[place.shape] + position, 0.0), place.colour, shade=0.8)
        self._add(_at_height(0.78 * OUTLINES[place.shape] + position, 0.0), place.colour)

    def _add_object(self, thing: Thing, centre: np.ndarray, table: Colour) -> None:
        outline = OUTLINES[thing.shape] + centre[:2]
        half = OBJECT_SIZE_M / 2
        self._add(_at_height(outline, 0.0), table, shade=0.55)
        self._add(_at_height(outline, centre[2] - half), thing.colour, shade=0.55)
        self._add(_at_height(outline, centre[2] + half), thing.colour)

    def _add_arm(self, world: World, arm: int) -> None:
        joints, base = world.joints[arm], kinematics.BASES[arm]
        shoulder, elbow, wrist, tip = kinematics.chain_points(joints, base)
        root = tip + 0.35 * (wrist - tip)
        for start, end, width_m in ((shoulder, elbow, 0.045), (elbow, wrist, 0.038), (wrist, root, 0.026)):
            self._add(np.stack([start, end]), ARM_COLOURS[arm], width_m=width_m)
        _, sideways = kinematics.planar_axes(joints[0] + joints[4])
        gap = (0.009 + 0.020 * world.openings[arm]) * np.array([*sideways, 0.0])
        for side in (gap, -gap):
            self._add(np.stack([root + side, tip + side]), FINGER_COLOURS[arm], width_m=0.010)

    def _add(self, points: np.ndarray, colour: Colour, *, shade: float = 1.0, width_m: float = 0.0) -> None:
        stop = self._num_points + len(points)
        self._shapes.append(_Shape(self._num_points, stop, self._lit(colour, shade), width_m))
        self._points.append(points)
        self._num_points = stop

    def _lit(self, colour: Colour, shade: float = 1.0) -> Colour:
        light = self._light * shade
        return (min(255, int(colour[0] * light)), min(255, int(colour[1] * light)), min(255, int(colour[2] * light)))


def _at_height(outline: np.ndarray, height: float) -> np.ndarray:
    points = np.empty((len(outline), 3))
    points[:, :2] = outline
    points[:, 2] = height
    return points
