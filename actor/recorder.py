"""Turns episodes into events, and the events into durable bytes in the spool.

An event that a learner would refuse never gets there, for all that comes after it would wait behind it for ever.
"""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from actor.intervention import Decision
from robot_infra.interfaces import Transition
from serl_launcher.errors import ProtocolError, RecordingError
from serl_launcher.events import (
    EncodedObservation,
    EpisodeEnded,
    EpisodeLabelled,
    EpisodeStarted,
    Event,
    StepRecorded,
    check_recordable,
    encode_observation,
    encode_vector,
)
from serl_launcher.images import encode_image
from serl_launcher.specs import RobotSpec
from serl_launcher.types import Observation, Outcome

logger = logging.getLogger(__name__)


class EventLog(Protocol):
    """Where events become durable; `actor.spool.Spool` is one."""

    @property
    def epoch(self) -> int:
        """Number of this session of the actor; it grows with every start."""
        ...

    def append(self, event: Event) -> int:
        """Stores an event so that it survives the death of this process; returns its sequence number."""
        ...

    def open_episodes(self) -> list[tuple[str, int]]:
        """Returns the id and the number of recorded steps of every episode that was not ended."""
        ...


@dataclass(kw_only=True, slots=True)
class Recorder:
    """Records one episode at a time. An episode without a step leaves no trace."""

    log: EventLog
    spec: RobotSpec
    actor_id: str
    num_steps: int = 0
    """Steps of the current episode."""
    number: int = -1
    """Number of the current episode."""
    last_episode_id: str | None = None
    """The episode that ended last; late labels are about it."""
    last_number: int = -1
    """Its number."""
    last_outcome: Outcome | None = None
    """Its newest label."""
    _begun_id: str = ""
    _episode: EpisodeStarted | None = None
    _unwritten_end: EpisodeEnded | None = None
    """End of an episode that the log refused; without it the log does not know the outcome."""

    @property
    def has_refused_end(self) -> bool:
        """Whether the end of an episode still waits for room on the disk."""
        return self._unwritten_end is not None

    @property
    def is_open(self) -> bool:
        """Whether an episode is under way."""
        return self._episode is not None

    def close_abandoned(self, *, only_own: bool = False) -> int:
        """Ends the episodes that a killed predecessor, or a full disk, left open as aborted; returns how many.

        With `only_own`, those that this recorder began: others may still be under way on other lanes.

        What the robot saw last is not known any more: their final observation is black. An end that only the disk
        refused is written as it was.
        """
        if self._unwritten_end is not None:
            self._write_end(self._unwritten_end)
        abandoned = [found for found in self.log.open_episodes() if not only_own or found[0] == self._begun_id]
        for episode_id, num_steps in abandoned:
            logger.warning("Episode %s was cut off after %d steps; it is recorded as aborted.", episode_id, num_steps)
            self._abort(episode_id, num_steps)
        return len(abandoned)

    def begin(self, number: int, *, seed: int, prompt: str) -> str:
        """Starts an episode and returns its id."""
        episode_id = f"{self.actor_id}-{self.log.epoch}-{number}"
        self._begun_id = episode_id
        self._episode = EpisodeStarted(episode_id, prompt, time.time(), seed)
        self.num_steps, self.number = 0, number
        return episode_id

    def record(self, observation: Observation, decision: Decision, transition: Transition) -> None:
        """Stores one tick: what was seen, who decided, what was executed.

        Raises:
            RecordingError: No learner would take it, e.g. a reward that is not finite. Nothing of the tick is stored.
        """
        if self._episode is None:
            raise RuntimeError("Expected an episode under way; call begin() first.")
        with self._explained(f"step {self.num_steps}", self._episode.episode_id):
            step = self._encode(self._episode.episode_id, observation, decision, transition)
            check_recordable(step, self.spec)
            if self.num_steps == 0:
                check_recordable(self._episode, self.spec)
                self.log.append(self._episode)
            self.log.append(step)
        self.num_steps += 1

    def end(self, observation: Observation, outcome: Outcome, labelled_by: str) -> None:
        """Ends the episode with its final observation; does nothing where none is under way or it has no steps.

        Raises:
            RecordingError: The final observation cannot be recorded; the episode is ended as aborted without one.
        """
        episode, self._episode = self._episode, None
        if episode is None or self.num_steps == 0:
            return
        try:
            with self._explained("the final observation", episode.episode_id):
                final = encode_observation(observation, self.spec)
                ended = EpisodeEnded(episode.episode_id, self.num_steps, final, outcome, labelled_by, time.time())
                check_recordable(ended, self.spec)
        except RecordingError:
            self._abort(episode.episode_id, self.num_steps)
            raise
        # Labels are about it from now on, also where the disk refuses its end for a while.
        self.last_episode_id, self.last_number, self.last_outcome = episode.episode_id, self.number, outcome
        self._write_end(ended)

    def label(self, episode_id: str, outcome: Outcome, labelled_by: str) -> None:
        """Judges an earlier episode, or corrects its label; the newest label counts."""
        label = EpisodeLabelled(episode_id, outcome, labelled_by, time.time())
        with self._explained("a label", episode_id):
            check_recordable(label, self.spec)
            self.log.append(label)
        if episode_id == self.last_episode_id:
            self.last_outcome = outcome

    def _encode(
        self, episode_id: str, observation: Observation, decision: Decision, transition: Transition
    ) -> StepRecorded:
        proposal = decision.proposal
        return StepRecorded(
            episode_id=episode_id,
            step=self.num_steps,
            observation=encode_observation(observation, self.spec),
            action=encode_vector(transition.executed_action, self.spec.action_dim, "executed action"),
            reward=float(transition.reward),
            terminated=bool(transition.terminated),
            truncated=bool(transition.truncated),
            source=int(decision.source),
            policy_version=decision.policy_version,
            wall_time_s=time.time(),
            monotonic_s=time.monotonic(),
            proposal=None if proposal is None else encode_vector(proposal, self.spec.action_dim, "proposal"),
        )

    def _abort(self, episode_id: str, num_steps: int) -> None:
        self._write_end(EpisodeEnded(episode_id, num_steps, self._nothing_seen(), Outcome.ABORTED, "", time.time()))

    def _write_end(self, ended: EpisodeEnded) -> None:
        self._unwritten_end = ended
        self.log.append(ended)
        self._unwritten_end = None

    @contextmanager
    def _explained(self, what: str, episode_id: str) -> Iterator[None]:
        try:
            yield
        except (ValueError, ProtocolError) as exc:
            raise RecordingError(
                f"Expected {what} of episode {episode_id!r} to be recordable: {exc} It is not recorded; look at the "
                "robot, its cameras and who gives its rewards."
            ) from exc

    def _nothing_seen(self) -> EncodedObservation:
        images = {camera.name: encode_image(np.zeros(camera.shape, np.uint8), camera) for camera in self.spec.cameras}
        return EncodedObservation(images, bytes(4 * self.spec.state_dim), "")
