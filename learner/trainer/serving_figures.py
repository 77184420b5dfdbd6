"""Figures of the learner server in the trainer's rows, so that one wandb or tensorboard run shows both.

The server is another process; its status file is what it tells. The round trip is measured by the actors.
"""

import time
from collections.abc import Mapping
from pathlib import Path

from serl_launcher.status import JSON, read_status

MAX_AGE_S = 30.0
"""An older status is of a server that is gone."""
OF_ACTORS = (
    "round_trip_ms_p50", "round_trip_ms_p99", "latency_ms_p50", "latency_ms_p99", "num_failed_requests",
    "num_deadline_misses", "num_held_ticks",
)  # fmt: skip


def serving_figures(path: Path) -> dict[str, float]:
    """Returns `server/...` and `actor/<id>/...` of the status file at `path`; nothing where it is absent or old."""
    status = read_status(path)
    told_s = None if status is None else _number(status.get("time"))
    if status is None or told_s is None or time.time() - told_s > MAX_AGE_S:
        return {}
    figures = {f"server/{name}": value for name, value in _numbers(status.get("inference")).items()}
    actors = status.get("actors")
    for actor_id, told in actors.items() if isinstance(actors, Mapping) else ():
        numbers = _numbers(told)
        figures |= {f"actor/{actor_id}/{name}": numbers[name] for name in OF_ACTORS if name in numbers}
    return figures


def _numbers(values: JSON) -> dict[str, float]:
    if not isinstance(values, Mapping):
        return {}
    found = {name: _number(value) for name, value in values.items()}
    return {name: value for name, value in found.items() if value is not None}


def _number(value: JSON) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
