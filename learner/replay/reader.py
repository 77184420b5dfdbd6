"""A LeRobot v3 dataset as replay: scalars in memory, images in place on disk, new episodes as they are sealed."""

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import cast

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from learner.replay.columns import PERSON, EpisodeTable, StepColumns, empty_tables, join, read_episodes
from learner.replay.episode_rows import EpisodeRow, file_groups, metadata_files, read_episode_rows, read_prompts
from learner.replay.image_files import ImageFiles
from learner.replay.pins import PinFile, named
from learner.replay.targets import Targets
from learner.replay.video_files import VideoFiles, picture_shape
from serl_launcher.allocator import give_back_freed_memory
from serl_launcher.datasets import features
from serl_launcher.datasets.layout import DatasetLayout, read_info
from serl_launcher.datasets.tables import column_values
from serl_launcher.errors import DatasetError, ProtocolError
from serl_launcher.files import file_identity
from serl_launcher.images import decode_image
from serl_launcher.specs import RobotSpec
from serl_launcher.types import Outcome

logger = logging.getLogger(__name__)

_EPISODES_AT_ONCE = 512
"""Bounds the memory of a scan."""

_LARGE_SCAN = 50
"""Episodes whose scan leaves so much freed memory behind that it is given back."""


class ReplayDataset:
    """Reads one dataset, ours or any LeRobot v3 or v2 one with images or videos; follows one that grows.

    For one thread of one process; others open the dataset for themselves, without copies of its pictures.

    A dataset that does not exist yet is empty until `refresh` finds it.

    Attributes:
        root: Directory of the dataset.
        episodes: One value per episode.
        steps: One value per step.
        prompts: Prompt of each task index.
        revision: Grows whenever something changed; what is derived from the dataset is made anew when it did.
    """

    def __init__(self, root: Path, *, label: str = "commanded") -> None:
        """Opens the dataset.

        Args:
            root: Its directory.
            label: What `targets` are: `commanded` or `measured`.

        Raises:
            DatasetError: It is damaged.
            ConfigError: Measured labels, of a robot whose actions are no positions.
        """
        self.root = root
        self._targets = Targets(label)
        self.prompts: list[str] = []
        self.revision = 0
        self.spec: RobotSpec | None = None
        self.control_hz = 0.0
        self.image_shapes: dict[str, tuple[int, int, int]] = {}
        self.episodes, self.steps = empty_tables(0, 0)
        self._layout = DatasetLayout(root)
        self._rows: list[EpisodeRow] = []
        self._data_files: list[str] = []
        self._image_features: dict[str, str] = {}
        self._video_features: list[str] = []
        self._images = ImageFiles()
        self._videos: VideoFiles | None = None
        self._final_rows: dict[Path, dict[str, int]] = {}
        self._final_states: dict[Path, np.ndarray] = {}
        self._info_identity: tuple[int, int, int] | None = None
        self._metadata: dict[Path, tuple[int, int, int]] = {}
        self._pins = PinFile(root)
        self.refresh()

    @property
    def num_episodes(self) -> int:
        """Episodes read so far."""
        return len(self._rows)

    @property
    def num_steps(self) -> int:
        """Steps read so far, N."""
        return len(self.steps)

    @property
    def targets(self) -> np.ndarray:
        """What a policy is to imitate at each step, float32 [N, A]: the commands, or what was measured after them."""
        return self._targets.of(self.episodes, self.steps, self.final_state)

    @property
    def camera_names(self) -> tuple[str, ...]:
        """Cameras in the order of the dataset; empty while there is none."""
        return tuple(self.image_shapes)

    def refresh(self) -> bool:
        """Reads episodes that were added, relabelled or pinned; returns whether any were. Costs two stats otherwise.

        Raises:
            DatasetError: A file is damaged, or the dataset lost episodes.
        """
        has_changed = self._pins.refresh()
        identity = file_identity(self._layout.info)
        if identity is not None and identity != self._info_identity:
            self._read()
            self._info_identity = identity
            has_changed = True
        self.revision += has_changed
        return has_changed

    def _read(self) -> None:
        """Reads what info.json counts and is not known yet."""
        info = read_info(self.root, versions=("v3.", "v2."))
        total = int(info["total_episodes"])
        if total < self.num_episodes:
            raise DatasetError(
                f"{self.root} had {self.num_episodes} episodes and now has {total}. Restart the process."
            )
        self._read_features(info)
        changed = {
            path: seen
            for path in metadata_files(self.root, info)
            if (seen := file_identity(path)) != self._metadata.get(path)
        }
        found = {path: read_episode_rows(path, info, self._video_features) for path in changed}
        rows = [row for read in found.values() for row in read if row.episode_index < total]
        self.prompts = read_prompts(self.root, info)
        self._add([row for row in rows if row.episode_index >= self.num_episodes], total)
        self._relabel(rows)
        # A metadata file may run ahead of info.json, which is written last: it is read again when info.json counts it.
        is_counted = {path: all(row.episode_index < total for row in read) for path, read in found.items()}
        self._metadata |= {path: seen for path, seen in changed.items() if seen is not None and is_counted[path]}

    def image(self, step: int, camera: str, out: np.ndarray | None = None) -> np.ndarray:
        """Returns what a camera saw at a step, uint8 `image_shapes[camera]`; in `out`, contiguous, where given.

        Raises:
            DatasetError: There is no such camera, or the picture is damaged.
        """
        if self._feature(camera) not in self._video_features:
            return self._decode(self.encoded_image(step, camera), camera, out)
        assert self._videos is not None, "made with the features"
        episode = int(self.steps.episode[step])
        place = self._rows[episode].videos[self._image_features[camera]]
        time_s = place.start_s + (step - int(self.episodes.first_step[episode])) / self.control_hz
        picture = self._videos.picture(str(self.root / place.path), time_s)
        if picture.shape != self.image_shapes[camera]:
            raise DatasetError(f"Expected {self.image_shapes[camera]} in {place.path}, got {picture.shape}.")
        if out is None:
            return picture
        out[...] = picture
        return out

    def final_image(self, episode: int, camera: str, out: np.ndarray | None = None) -> np.ndarray:
        """Returns what a camera saw after the last step; the last step's image where nothing later was stored."""
        path, row = self._final_place(episode)
        if path is None:
            return self.image(self._last_step(episode), camera, out)
        return self._decode(self._images.encoded(str(path), self._feature(camera), row), camera, out)

    def encoded_image(self, step: int, camera: str) -> memoryview:
        """Returns the JPEG or PNG bytes that a camera delivered at a step, in place; not of a video."""
        episode = int(self.steps.episode[step])
        row = int(self.episodes.first_row[episode]) + step - int(self.episodes.first_step[episode])
        return self._images.encoded(self._data_files[episode], self._feature(camera), row)

    def final_state(self, episode: int) -> np.ndarray:
        """Returns the state after the last step, float32 [S]; the last step's where nothing later was stored."""
        path, row = self._final_place(episode)
        if path is None:
            return self.steps.state[self._last_step(episode)]
        if path not in self._final_states:
            with pq.ParquetFile(path) as file:
                states = column_values(file.read(columns=[features.STATE]), features.STATE)
            self._final_states[path] = states.astype(np.float32).reshape(len(states), -1)
        return self._final_states[path][row]

    def _decode(self, encoded: memoryview, camera: str, out: np.ndarray | None) -> np.ndarray:
        try:
            return decode_image(encoded, self.image_shapes[camera], out)
        except ProtocolError as exc:
            raise DatasetError(f"Damaged image in {self.root}, run tools.replay verify: {exc}") from exc

    def _last_step(self, episode: int) -> int:
        return int(self.episodes.first_step[episode] + self.episodes.length[episode]) - 1

    def _final_place(self, episode: int) -> tuple[Path | None, int]:
        """Returns where an episode's final observation lies: a file (None where nothing was stored) and a row."""
        row = self._rows[episode]
        path = self.root / final_observation_file(row.data_file)
        if path not in self._final_rows:
            ids: list[str] = []
            if self.spec is not None and path.exists():
                with pq.ParquetFile(path) as file:
                    ids = file.read(columns=[features.EPISODE_ID])[features.EPISODE_ID].to_pylist()
            self._final_rows[path] = {episode_id: number for number, episode_id in enumerate(ids)}
        number = self._final_rows[path].get(row.episode_id)
        return (None, 0) if number is None else (path, number)

    def episode_id(self, episode: int) -> str:
        """Returns the id of an episode; empty in datasets that hiors did not write."""
        return self._rows[episode].episode_id

    def label_of(self, episode: int) -> tuple[str, str]:
        """Returns the newest label of an episode and who gave it; both empty in datasets that hiors did not write."""
        row = self._rows[episode]
        return row.outcome or "", row.labelled_by

    def is_pinned(self, pinned: Iterable[str]) -> np.ndarray:
        """Returns which episodes the dataset's own pins or these name, by number or id, bool [E]."""
        names = self._pins.names | named(pinned)
        if not names:
            return np.zeros(self.num_episodes, bool)
        return np.array([row.episode_id in names or str(row.episode_index) in names for row in self._rows], bool)

    def _feature(self, camera: str) -> str:
        if camera not in self._image_features:
            raise DatasetError(f"{self.root} has no camera {camera!r}; it has {list(self._image_features)}.")
        return self._image_features[camera]

    def _read_features(self, info: dict) -> None:
        if self._info_identity is not None:
            return
        described = info["features"]
        for name, feature in described.items():
            if feature["dtype"] in ("image", "video"):
                camera = name.removeprefix(features.IMAGE_PREFIX).removeprefix("observation.")
                self._image_features[camera] = name
                self.image_shapes[camera] = picture_shape(feature, name)
            if feature["dtype"] == "video":
                self._video_features.append(name)
        self.control_hz = float(info["fps"])
        self._videos = VideoFiles(self.control_hz) if self._video_features else None
        for name in (features.STATE, features.ACTION):
            if name not in described:
                raise DatasetError(f"{self.root} has no feature {name!r}; it has {sorted(described)}.")
        self.episodes, self.steps = empty_tables(
            int(described[features.STATE]["shape"][0]), int(described[features.ACTION]["shape"][0])
        )
        if self._layout.robot_spec.exists():
            self.spec = msgspec.json.decode(self._layout.robot_spec.read_bytes(), type=RobotSpec)
        self._targets.check(described)

    def _add(self, rows: list[EpisodeRow], total: int) -> None:
        """Appends new episodes; `total` is how many there must be then."""
        rows = sorted(rows, key=lambda row: row.episode_index)
        if [row.episode_index for row in rows] != list(range(self.num_episodes, total)):
            raise DatasetError(
                f"{self.root} counts {total} episodes, but its metadata has "
                f"{[row.episode_index for row in rows][:20]} beyond the first {self.num_episodes}. "
                "Run tools.replay verify."
            )
        episodes, steps = [self.episodes], [self.steps]
        num_episodes, num_steps = len(self.episodes), len(self.steps)
        for group in file_groups(rows, at_least=_EPISODES_AT_ONCE):
            new_episodes, new_steps = read_episodes(self.root, group, first_episode=num_episodes, first_step=num_steps)
            episodes.append(new_episodes)
            steps.append(new_steps)
            num_episodes += len(new_episodes)
            num_steps += len(new_steps)
        self.episodes = cast(EpisodeTable, join(episodes))
        self.steps = cast(StepColumns, join(steps))
        self._rows.extend(rows)
        self._data_files.extend(str(self.root / row.data_file) for row in rows)
        if len(rows) >= _LARGE_SCAN:
            pa.default_memory_pool().release_unused()
            give_back_freed_memory()

    def _relabel(self, rows: list[EpisodeRow]) -> None:
        """Applies labels that differ from those already read."""
        for row in rows:
            known = self._rows[row.episode_index]
            if row.outcome is not None and (row.outcome, row.labelled_by) != (known.outcome, known.labelled_by):
                self._rows[row.episode_index] = row
                self.episodes.outcome[row.episode_index] = Outcome(row.outcome)
                self.episodes.is_judged_by_person[row.episode_index] = row.labelled_by == PERSON
                self._images.forget(self._data_files[row.episode_index])


def final_observation_file(data_file: Path) -> Path:
    """Returns where hiors keeps the final observations of a data file's episodes, relative to the dataset."""
    return Path("final_observations", *data_file.parts[1:])
