"""What the policy was called with lately: the next version is warmed up with it before it is taken over."""

import threading
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import replace

import numpy as np

from learner.server.lanes import Lanes
from serl_launcher.batch_sizes import padded_size

MAX_CALLS = 12
"""Kinds of calls that are kept; the one not made for longest goes first."""
_PROMPT_CHARS = 32
"""Prompts whose lengths differ by less are taken for one: about half a bucket of tokens (`PROMPT_BUCKET`)."""


class RecentCalls:
    """Newest call of each kind: batch size, length of prompts, whether chunks were continued. Any thread may use it."""

    def __init__(self) -> None:
        self._calls: OrderedDict[Hashable, tuple[Lanes, tuple[int, ...]]] = OrderedDict()
        self._lock = threading.Lock()

    def note(self, lanes: Lanes) -> None:
        """Remembers a call that was answered; of its images only the shape."""
        longest = max(map(len, lanes.prompts))
        key = (padded_size(len(lanes)), any(lanes.unfinished), longest // _PROMPT_CHARS)
        with self._lock:
            self._calls[key] = replace(lanes, images=np.empty(0, np.uint8)), lanes.images.shape
            self._calls.move_to_end(key)
            if len(self._calls) > MAX_CALLS:
                self._calls.popitem(last=False)

    def newest(self) -> list[Lanes]:
        """Returns the calls, with black images."""
        with self._lock:
            calls = list(self._calls.values())
        return [replace(lanes, images=np.zeros(shape, np.uint8)) for lanes, shape in calls]
