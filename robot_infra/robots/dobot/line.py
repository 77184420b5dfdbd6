"""Where an arm is to be between two commands."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Line:
    """A straight motion between two positions, [7] each."""

    start: np.ndarray
    goal: np.ndarray
    begin_s: float
    end_s: float
    """When the goal is reached; the arm stays there."""

    def at(self, now: float) -> np.ndarray:
        """Returns where the arm is to be now, [7]."""
        if now >= self.end_s:
            return self.goal
        return self.start + (now - self.begin_s) / (self.end_s - self.begin_s) * (self.goal - self.start)
