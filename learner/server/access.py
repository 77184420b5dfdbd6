"""Which key may connect, and for which actor it may speak."""

from pathlib import Path

from serl_launcher.errors import Refused
from serl_launcher.transport.keys import AllowList, LearnerKeys, read_learner_keys


class Access:
    """Asks the allow-list at each connection and at each message, so that a change counts within a second."""

    def __init__(self, keys_dir: Path | None) -> None:
        """Uses the keys in `keys_dir`; without, everybody who reaches the port may speak for any actor."""
        self._keys_dir = keys_dir
        self._allow_list = None if keys_dir is None else AllowList(keys_dir)

    def read_keys(self) -> LearnerKeys | None:
        """Returns the keys of the learner, None without a directory; raises ConfigError where they are missing."""
        return None if self._keys_dir is None else read_learner_keys(self._keys_dir)

    def may_connect(self, public: bytes) -> bool:
        """Returns whether the key belongs to a robot of the list."""
        return self._allow_list is None or self._allow_list.is_allowed(public)

    def check(self, public: str, *, actor_id: str | None) -> None:
        """Raises Refused where that key may not speak for that actor; None: before it has said who it is."""
        if self._allow_list is None:
            return
        robot = self._allow_list.robot(public.encode())
        if robot is None:
            raise Refused("The key of this robot is not in the allow-list (any more). See python -m tools.keys.")
        if actor_id not in (None, robot):
            raise Refused(
                f"Expected actor.id={robot!r}, for that is whose key this is, got {actor_id!r}. Start the actor with "
                f"the id of its key, or make a key for it with `python -m tools.keys add {actor_id}`."
            )
