"""Verdicts by key: `s` success and `f` failure of this episode, `S` and `F` correct the label of the one before."""

from actor.rewards.bus import RewardBus, Verdict
from serl_launcher.types import Outcome

OUTCOMES = {"s": Outcome.SUCCESS, "f": Outcome.FAILURE}


class VerdictKeys:
    """Turns keys into verdicts; give `on_key` to a keyboard."""

    def __init__(self, bus: RewardBus) -> None:
        self._bus = bus

    def on_key(self, key: str) -> None:
        """Posts a verdict where the key is one; other keys are somebody else's."""
        outcome = OUTCOMES.get(key.lower())
        if outcome is not None:
            self._bus.post(Verdict(outcome=outcome, by="human", corrects_last=key.isupper()))
