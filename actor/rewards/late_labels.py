"""Brings late and corrected verdicts to the episode that they are about."""

import logging
from dataclasses import dataclass

from actor.progress import Progress
from actor.recorder import Recorder
from actor.rewards.bus import RewardBus

logger = logging.getLogger(__name__)


@dataclass(kw_only=True, slots=True)
class LateLabels:
    """Applied by the control loop, which alone writes to the recorder."""

    bus: RewardBus
    recorder: Recorder
    progress: Progress

    def apply(self) -> None:
        """Labels the last ended episode by every verdict that came too late for it; without one they are dropped.

        A verdict on an episode whose end is not written yet waits for that.
        """
        if self.recorder.has_refused_end:
            return
        for verdict in self.bus.take_late(keep_newest=self.recorder.is_open):
            episode_id = self.recorder.last_episode_id
            if episode_id is None:
                logger.warning("A verdict (%s) came before the first episode; it is dropped.", verdict.outcome)
                continue
            self.recorder.label(episode_id, verdict.outcome, verdict.by)
            self.progress.relabel(self.recorder.last_number, verdict.outcome)
            logger.info("Episode %s is now labelled %s by %s.", episode_id, verdict.outcome, verdict.by)
