"""What lies on the table: objects, places, prompts.

The evaluated task and the play on other things share none of them.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

Colour = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Thing:
    """An object that can be grasped, or a place that can receive one."""

    name: str
    shape: str
    """Objects: `cube`, `cylinder`, `prism`. Places: `plate` (round), `tray` (square)."""
    colour: Colour


@dataclass(frozen=True, slots=True)
class Catalogue:
    """Which objects, places and sentences a task draws from. Every scene shows two objects and two places."""

    objects: tuple[Thing, ...]
    places: tuple[Thing, ...]
    sentences: tuple[str, ...]
    varied_start: bool = False
    """Whether hands start anywhere above the table, sometimes with the object in hand, instead of at home."""


TASK = Catalogue(
    objects=(Thing("red cube", "cube", (205, 40, 40)), Thing("blue cube", "cube", (40, 70, 210))),
    places=(Thing("green plate", "plate", (60, 165, 75)), Thing("white plate", "plate", (238, 238, 232))),
    sentences=("put the {object} on the {place}",),
)
"""The evaluated task: two objects times two places are four prompts, and no behaviour serves two of them."""

PLAY = Catalogue(
    objects=(
        Thing("yellow ball", "cylinder", (232, 205, 40)),
        Thing("orange prism", "prism", (238, 130, 30)),
        Thing("purple ball", "cylinder", (135, 60, 170)),
        Thing("cyan prism", "prism", (50, 190, 200)),
        Thing("pink block", "cube", (240, 130, 175)),
        Thing("brown block", "cube", (120, 78, 45)),
        Thing("lime prism", "prism", (165, 220, 60)),
        Thing("navy ball", "cylinder", (25, 30, 90)),
    ),
    places=(
        Thing("black tray", "tray", (38, 38, 40)),
        Thing("violet tray", "tray", (170, 130, 215)),
        Thing("golden dish", "plate", (215, 165, 55)),
        Thing("maroon dish", "plate", (110, 25, 50)),
        Thing("teal tray", "tray", (20, 110, 115)),
        Thing("grey dish", "plate", (130, 130, 135)),
    ),
    sentences=(
        "move the {object} to the {place}",
        "bring the {object} over to the {place}",
        "the {object} goes onto the {place}",
    ),
    varied_start=True,
)
"""Scripted play for the base checkpoint: no object, place, colour word or sentence of the task."""


@dataclass(kw_only=True, slots=True)
class Scene:
    """One drawn start state. Object 0 and place 0 are the ones that the prompt names."""

    objects: tuple[Thing, Thing]
    places: tuple[Thing, Thing]
    object_positions: np.ndarray
    """[2, 2] in metres on the table."""
    place_positions: np.ndarray
    """[2, 2] in metres on the table."""
    prompt: str
    brightness: float
    table: Colour
    start_tip: np.ndarray | None = None
    """[3] in metres: where the hand on the object's side starts; None is home."""
    starts_holding: bool = False
    starts_closed: bool = False
    """Whether that hand starts with its fingers closed on nothing, as after a miss."""


def draw_scene(catalogue: Catalogue, rng: np.random.Generator) -> Scene:
    """Draws things, poses, prompt and light; everything comes from the generator."""
    objects = [catalogue.objects[i] for i in rng.permutation(len(catalogue.objects))[:2]]
    places = [catalogue.places[i] for i in rng.permutation(len(catalogue.places))[:2]]
    sentence = catalogue.sentences[rng.integers(len(catalogue.sentences))]
    shade = rng.uniform(-10, 10, 3)
    positions = _draw_object_positions(rng)
    start = _draw_start(positions[0], rng) if catalogue.varied_start else {}
    return Scene(
        objects=(objects[0], objects[1]),
        places=(places[0], places[1]),
        object_positions=positions,
        place_positions=_draw_place_positions(rng),
        prompt=sentence.format(object=objects[0].name, place=places[0].name),
        brightness=float(rng.uniform(0.9, 1.1)),
        **start,
        table=(int(176 + shade[0]), int(164 + shade[1]), int(146 + shade[2])),
    )


def _draw_object_positions(rng: np.random.Generator) -> np.ndarray:
    while True:
        sides = rng.choice([-1.0, 1.0], 2)
        positions = np.stack([sides * rng.uniform(0.06, 0.30, 2), rng.uniform(0.11, 0.24, 2)], axis=1)
        if np.linalg.norm(positions[0] - positions[1]) > 0.09:
            return positions


def _draw_place_positions(rng: np.random.Generator) -> np.ndarray:
    sides = rng.permutation([-1.0, 1.0])
    return np.stack([sides * rng.uniform(0.07, 0.15, 2), rng.uniform(0.31, 0.37, 2)], axis=1)


def _draw_start(target: np.ndarray, rng: np.random.Generator) -> dict[str, Any]:
    """Returns the start fields of a Scene: at home, near the object, anywhere, with closed fingers or holding it."""
    kind = rng.random()
    if kind < 0.2:
        return {}
    if kind < 0.6:
        tip = np.array([*(target + rng.normal(0, 0.04, 2)), rng.uniform(0.015, 0.12)])
        return {"start_tip": tip, "starts_closed": kind < 0.35}
    sideways = np.sign(target[0]) * rng.uniform(-0.12, 0.28)
    tip = np.array([sideways, rng.uniform(0.12, 0.37), rng.uniform(0.02, 0.14)])
    return {"start_tip": tip, "starts_closed": kind < 0.7, "starts_holding": kind > 0.75}
