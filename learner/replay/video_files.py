"""Single pictures out of video files, for demonstrations that others recorded as video."""

import logging
import math
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from serl_launcher.errors import DatasetError

logger = logging.getLogger(__name__)

MAX_OPEN_FILES = 32
"""Files that stay open; each holds a decoder of some megabytes."""
_SKIPPED_FRAMES = 8
"""Frames further on than this are sought, nearer ones are decoded up to."""


@dataclass(slots=True)
class _Open:
    container: Any  # av.container.InputContainer; PyAV is imported when the first video is read.
    frames: Iterator[Any]
    position_s: float
    """Time of the frame that was decoded last."""


class VideoFiles:
    """Returns the picture at a time of a video; keeps the most recently used files open. One thread only."""

    def __init__(self, rate_hz: float, max_open: int = MAX_OPEN_FILES) -> None:
        """Reads videos of `rate_hz` frames per second."""
        self._rate_hz = rate_hz
        self._max_open = max_open
        self._files: OrderedDict[str, _Open] = OrderedDict()

    def picture(self, path: str, time_s: float) -> np.ndarray:
        """Returns the frame shown at `time_s`, uint8 (height, width, 3), RGB.

        Raises:
            DatasetError: The file is missing or damaged, or has no frame within half a frame of that time.
        """
        from av.error import FFmpegError

        file = self._file(path)
        try:
            frame = self._frame(file, time_s)
        except (FFmpegError, ValueError) as exc:
            self._files.pop(path, None)
            raise DatasetError(f"Expected a video with a frame at {time_s:.3f} s in {path}: {exc}.") from exc
        if frame is None or abs(file.position_s - time_s) > 0.5 / self._rate_hz:
            raise DatasetError(
                f"Expected a frame at {time_s:.3f} s in {path}, the next one is at {file.position_s:.3f} s."
            )
        return frame.to_ndarray(format="rgb24")

    def _frame(self, file: _Open, time_s: float) -> Any:  # An av.VideoFrame, or None behind the end.
        """Decodes up to the frame at a time; seeks only where going on from the last one would take longer."""
        earliest_s = time_s - 0.5 / self._rate_hz
        if not 0.5 < (time_s - file.position_s) * self._rate_hz <= _SKIPPED_FRAMES:
            stream = file.container.streams.video[0]
            file.container.seek(max(0, math.floor(earliest_s / stream.time_base)), stream=stream)
            file.frames = file.container.decode(stream)
        for frame in file.frames:
            file.position_s = float(frame.time)
            if file.position_s >= earliest_s:
                return frame
        file.position_s = math.inf
        return None

    def _file(self, path: str) -> _Open:
        import av
        from av.error import FFmpegError

        file = self._files.get(path)
        if file is not None:
            self._files.move_to_end(path)
            return file
        try:
            container = av.open(path)
            container.streams.video[0].codec_context.thread_count = 1  # Workers share the cores, not decoders.
        except (FFmpegError, OSError, IndexError) as exc:
            raise DatasetError(f"Expected a video in {path}: {exc}. Restore the file.") from exc
        file = self._files[path] = _Open(container, iter(()), math.inf)
        while len(self._files) > self._max_open:
            _, oldest = self._files.popitem(last=False)
            oldest.container.close()
        return file


def picture_shape(feature: dict, name: str) -> tuple[int, int, int]:
    """Returns (height, width, channels) of an image or video feature, whichever order the dataset wrote."""
    shape = tuple(int(size) for size in feature["shape"])
    if len(shape) != 3:
        raise DatasetError(f"Expected three sizes in the shape of {name!r}, got {list(shape)}.")
    names = feature.get("names") or []
    is_channels_first = names[0] in ("channel", "channels") if names else shape[0] == 3 != shape[2]
    return (shape[1], shape[2], shape[0]) if is_channels_first else (shape[0], shape[1], shape[2])
