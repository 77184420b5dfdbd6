"""A spool on disk and what is in it."""

from pathlib import Path

from actor.spool import Spool
from serl_launcher.events import EpisodeEnded, EpisodeStarted, Event, StepRecorded, decode_event

LIMIT_BYTES = 64 * 1024**2


def open_spool(directory: Path, *, max_bytes: int = LIMIT_BYTES) -> Spool:
    return Spool(directory / "actor-0", max_bytes=max_bytes)


def events_in(spool: Spool) -> list[Event]:
    return [decode_event(encoded) for _, encoded in spool.pending(0, 1_000_000, LIMIT_BYTES)]


def started_in(spool: Spool) -> list[EpisodeStarted]:
    return [event for event in events_in(spool) if isinstance(event, EpisodeStarted)]


def steps_in(spool: Spool) -> list[StepRecorded]:
    return [event for event in events_in(spool) if isinstance(event, StepRecorded)]


def ended_in(spool: Spool) -> list[EpisodeEnded]:
    return [event for event in events_in(spool) if isinstance(event, EpisodeEnded)]
