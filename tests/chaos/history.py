"""What an actor says it did, line by line on its standard output, and what must therefore be in the dataset.

    S <epoch> <last seq> <acknowledged seq>     the actor has started
    T <seq> <event as JSON>                     it is about to record this
    A <seq>                                     it has recorded it: the promise begins here
    K <seq>                                     the learner has acknowledged everything up to there
    E <last seq> <pending>                      it ends

Lines survive the death of the actor as soon as they are written, also while its disk is full. An event that was tried
but not seen to be recorded may or may not exist; the next sequence number that is tried tells.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from serl_launcher.events import EncodedObservation, EpisodeEnded, EpisodeLabelled, EpisodeStarted, Event, StepRecorded

Noted = dict[str, Any]
"""An event in short: kind, episode, and digest or outcome."""


def digest(*parts: bytes | str | float | int | bool) -> str:
    """Returns a digest over all that must come back unchanged."""
    whole = hashlib.sha256()
    for part in parts:
        encoded = part if isinstance(part, bytes) else repr(part).encode()
        whole.update(len(encoded).to_bytes(8, "big") + encoded)
    return whole.hexdigest()[:32]


def observation_parts(observation: EncodedObservation) -> list[bytes | str]:
    parts: list[bytes | str] = [bytes(observation.images[name]) for name in sorted(observation.images)]
    return [*parts, bytes(observation.state)]


def note_of(event: Event) -> Noted:
    """Returns what is noted of an event."""
    if isinstance(event, EpisodeStarted):
        return {"kind": "start", "episode": event.episode_id, "seed": event.seed}
    if isinstance(event, StepRecorded):
        content = digest(
            *observation_parts(event.observation), event.observation.prompt, bytes(event.action), float(event.reward),
            event.terminated, event.truncated, event.source, event.policy_version, event.wall_time_s, event.monotonic_s,
        )  # fmt: skip
        return {"kind": "step", "episode": event.episode_id, "step": event.step, "digest": content}
    if isinstance(event, EpisodeEnded):
        final = digest(*observation_parts(event.final_observation))
        outcome, judge = str(event.outcome), event.labelled_by
        return {"kind": "end", "episode": event.episode_id, "outcome": outcome, "judge": judge, "final": final}
    assert isinstance(event, EpisodeLabelled)
    return {"kind": "label", "episode": event.episode_id, "outcome": str(event.outcome), "judge": event.labelled_by}


@dataclass(kw_only=True)
class Episode:
    """One episode as it was recorded, or as it was found."""

    episode_id: str
    steps: list[str] = field(default_factory=list)
    """Digest of each step, in order."""
    final: str = ""
    """Digest of the final observation."""
    label: tuple[str, str] = ("", "")
    """Newest outcome and who judged."""
    is_ended: bool = False


@dataclass
class ActorHistory:
    """Everything one actor said, over all of its lives."""

    actor_id: str
    events: dict[int, Noted] = field(default_factory=dict)
    """By sequence number, the newest try."""
    recorded_seq: int = 0
    """Newest event that was seen to be recorded."""
    acknowledged_seq: int = 0
    num_starts: int = 0
    num_steps: int = 0
    """Steps seen to be recorded."""
    ended_seq: int | None = None
    """Newest event of a life that ended in good order with nothing pending and no episode open."""
    problems: list[str] = field(default_factory=list)

    def read(self, line: str) -> None:
        """Takes one line."""
        mark, rest = line[0], line[2:]
        if mark == "T":
            seq, note = rest.split(" ", 1)
            self._tried(int(seq), json.loads(note))
        elif mark == "A":
            self._recorded(int(rest))
        elif mark == "K":
            self.acknowledged_seq = max(self.acknowledged_seq, int(rest))
        elif mark == "S":
            self.num_starts += 1
            self.ended_seq = None
            _, last_seq, _ = map(int, rest.split())
            if last_seq < self.recorded_seq:
                self.problems.append(f"the spool forgot events {last_seq + 1} to {self.recorded_seq}")
        elif mark == "E":
            last_seq, pending = map(int, rest.split())
            # A full disk may have refused the end of the last episode; the next life of the actor writes it.
            self.ended_seq = last_seq if pending == 0 and not self._open_episodes(last_seq) else None

    def episodes(self) -> list[Episode]:
        """Returns the episodes with steps in the order in which they ended; call it after a good end."""
        assert self.ended_seq is not None, f"{self.actor_id} has not delivered everything"
        found: dict[str, Episode] = {}
        order: list[Episode] = []
        for seq in range(1, self.ended_seq + 1):
            note = self.events[seq]
            episode = found.setdefault(note["episode"], Episode(episode_id=note["episode"]))
            if note["kind"] == "step":
                episode.steps.append(note["digest"])
            elif note["kind"] in ("end", "label"):
                episode.label = (note["outcome"], note["judge"])
            if note["kind"] == "end":
                episode.final, episode.is_ended = note["final"], True
                order.append(episode)
        return [episode for episode in order if episode.steps]

    def _open_episodes(self, last_seq: int) -> set[str]:
        notes = [self.events[seq] for seq in range(1, last_seq + 1)]
        ended = {note["episode"] for note in notes if note["kind"] == "end"}
        return {note["episode"] for note in notes if note["kind"] == "step"} - ended

    def _tried(self, seq: int, note: Noted) -> None:
        if seq <= self.recorded_seq:
            self.problems.append(f"event {seq} was recorded twice; the promise was given up to {self.recorded_seq}")
        self.events[seq] = note

    def _recorded(self, seq: int) -> None:
        self.recorded_seq = seq
        self.num_steps += self.events[seq]["kind"] == "step"


def find_problems(histories: Sequence[ActorHistory]) -> list[str]:
    """Returns what actors themselves saw go wrong."""
    return [f"{history.actor_id}: {problem}" for history in histories for problem in history.problems]
