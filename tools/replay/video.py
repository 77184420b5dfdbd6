"""Stores the pictures of a copied dataset as video, in the layout of LeRobot v3: small, for the shelf."""

from fractions import Fraction
from typing import cast

import av
import numpy as np
import pyarrow as pa

from serl_launcher.datasets import features
from serl_launcher.datasets.copying import CopiedEpisode, Group
from serl_launcher.datasets.layout import DatasetLayout, numbered
from serl_launcher.files import make_directory, sync_file
from serl_launcher.images import decode_image

CODEC = "libsvtav1"
_OPTIONS = {"crf": "30", "g": "2"}
"""As LeRobot's own recordings: every other frame is a key frame, so that single frames are quick to find."""


class VideoStore:
    """Writes one video per camera for each data file, and takes the pictures out of the data."""

    def __init__(self, described: dict[str, dict], rate_hz: float) -> None:
        """Stores the image features among `described` (of info.json) as video of `rate_hz` frames per second."""
        self._rate_hz = Fraction(rate_hz).limit_denominator(1000)
        self._images = {name: feature for name, feature in described.items() if feature["dtype"] == "image"}
        self._described = described

    def described(self) -> dict[str, dict]:
        """Returns the features of the new dataset."""
        return {name: self._video_feature(name) if name in self._images else self._described[name]
                for name in self._described}  # fmt: skip

    def __call__(self, layout: DatasetLayout, number: int, group: Group) -> pa.Table:
        """Writes the videos of file number n; returns the steps without pictures."""
        chunk, file = numbered(number).parent.name, numbered(number).stem
        for name in self._images:
            self._write(layout, name, number, group)
            start_s = 0.0
            for episode in group:
                end_s = start_s + float(episode.length / self._rate_hz)
                episode.row |= {
                    f"videos/{name}/chunk_index": int(chunk.removeprefix("chunk-")),
                    f"videos/{name}/file_index": int(file.removeprefix("file-")),
                    f"videos/{name}/from_timestamp": start_s,
                    f"videos/{name}/to_timestamp": end_s,
                }
                start_s = end_s
        return pa.concat_tables([_without(episode.steps, list(self._images)) for episode in group])

    def _video_feature(self, name: str) -> dict:
        height, width, channels = self._images[name]["shape"]
        info = {
            "video.height": height, "video.width": width, "video.channels": channels, "video.codec": "av1",
            "video.pix_fmt": "yuv420p", "video.is_depth_map": False, "video.fps": float(self._rate_hz),
            "has_audio": False,
        }  # fmt: skip
        return {**self._images[name], "dtype": "video", "info": info}

    def _write(self, layout: DatasetLayout, name: str, number: int, group: Group) -> None:
        path = layout.root / "videos" / name / numbered(number).with_suffix(".mp4")
        make_directory(path.parent)
        height, width, _ = self._images[name]["shape"]
        with av.open(str(path), "w") as container:
            stream = cast(av.VideoStream, container.add_stream(CODEC, rate=self._rate_hz, options=_OPTIONS))
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            for episode in group:
                for picture in _pictures(episode, name, (height, width, 3)):
                    container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            container.mux(stream.encode())
        sync_file(path)


def _pictures(episode: CopiedEpisode, name: str, shape: tuple[int, int, int]) -> list[np.ndarray]:
    encoded = episode.steps[name].combine_chunks().field("bytes")
    return [decode_image(memoryview(each.as_buffer()).cast("B"), shape) for each in encoded]


def _without(steps: pa.Table, names: list[str]) -> pa.Table:
    """Returns the steps without some columns, and without what their schema's metadata says about them."""
    kept = steps.drop_columns(names)
    schema = features.without_described(kept.schema, names)
    return pa.table(kept.columns, schema=schema)
