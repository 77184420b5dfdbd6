"""Datasets of others serve as demonstrations as they are: LeRobot v3 and v2.1, images and videos."""

import io
import json
import os
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from learner.replay.chunks import ChunkSampler
from learner.replay.image_files import ImageFiles
from learner.replay.reader import ReplayDataset
from learner.replay.video_files import VideoFiles, picture_shape
from learner.replay.views import all_steps, demonstrations
from serl_launcher.config.dataset import DatasetConfig
from serl_launcher.errors import DatasetError
from serl_launcher.types import Outcome, Source

LENGTHS = (6, 4, 5)
SIZE = 64
FOLDER = Path(__file__).parent


def grey_of(episode: int, step: int) -> int:
    return 20 + 60 * episode + 8 * step


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which LeRobot has written `image` and `video`."""
    pytest.importorskip("lerobot")
    folder = tmp_path_factory.mktemp("lerobot")
    environment = {**os.environ, "HF_DATASETS_CACHE": str(folder / "cache"), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-W", "ignore", str(FOLDER / "write_with_lerobot.py"), str(folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


def check_steps(dataset: ReplayDataset, *, tolerance: float) -> None:
    assert dataset.episodes.length.tolist() == list(LENGTHS)
    assert dataset.camera_names == ("front",)
    order = np.random.default_rng(0).permutation(dataset.num_steps)
    for step in order.tolist():
        episode = int(dataset.steps.episode[step])
        frame = step - int(dataset.episodes.first_step[episode])
        np.testing.assert_array_equal(dataset.steps.state[step], [episode, frame, 0])
        np.testing.assert_array_equal(dataset.steps.action[step], [episode + 0.5, frame + 0.5, 0.5])
        picture = dataset.image(step, "front")
        assert (picture.shape, picture.dtype) == ((SIZE, SIZE, 3), np.uint8)
        assert np.abs(picture.astype(float) - grey_of(episode, frame)).max() <= tolerance
        assert dataset.prompts[dataset.steps.task_index[step]] == f"task {episode % 2}"


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("form", "tolerance"), [("image", 0), ("video", 4)])
def test_what_lerobot_wrote_is_read_as_it_is(written: Path, form: str, tolerance: float) -> None:
    before = {path: path.stat().st_mtime_ns for path in (written / form).rglob("*")}
    dataset = ReplayDataset(written / form)
    check_steps(dataset, tolerance=tolerance)
    assert set(dataset.episodes.outcome.tolist()) == {Outcome.UNLABELLED}
    assert set(dataset.steps.source.tolist()) == {Source.HUMAN}
    assert {path: path.stat().st_mtime_ns for path in (written / form).rglob("*")} == before


@pytest.mark.timeout(600)
def test_videos_are_decoded_to_what_lerobot_decodes(written: Path) -> None:
    theirs = json.loads((written / "decoded.json").read_text())
    dataset = ReplayDataset(written / "video")
    for episode, first in enumerate(dataset.episodes.first_step.tolist()):
        ours = [dataset.image(first + step, "front").mean() for step in range(LENGTHS[episode])]
        assert ours == pytest.approx(theirs[episode], abs=0.6)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("form", ["image", "video"])
def test_chunks_of_a_foreign_dataset_end_with_their_episode(written: Path, form: str) -> None:
    dataset = ReplayDataset(written / form)
    batch = ChunkSampler(dataset, horizon=3, cameras=("front",), with_next=True).sample(np.array([2, 5, 8]))
    assert batch.is_pad.tolist() == [[False] * 3, [False, True, True], [False, False, True]]
    assert batch.next_state is not None
    assert batch.next_images is not None
    # Nothing was stored after the last step: its own observation stands in, and the chunk does not end the task.
    assert batch.next_state[:, :2].tolist() == [[0, 5], [0, 5], [1, 3]]
    assert [round(float(image.mean())) for image in batch.next_images[:, 0]] == pytest.approx(
        [grey_of(0, 5), grey_of(0, 5), grey_of(1, 3)], abs=4
    )
    assert not batch.is_terminal.any()
    assert (demonstrations(DatasetConfig(), horizon=3)(dataset) == all_steps(dataset)).all()


def test_little_memory_is_enough_for_compressed_images(tmp_path: Path) -> None:
    pictures = [png(number) for number in range(40)]
    column = pa.array([{"bytes": picture, "path": "x.png"} for picture in pictures])
    path = tmp_path / "file.parquet"
    pq.write_table(pa.table({"front": column}), path, row_group_size=8, compression="snappy")
    limit = 16 * max(map(len, pictures))
    files = ImageFiles(max_copied_bytes=limit)
    for row in [*range(40), *range(39, -1, -1)]:
        assert bytes(files.encoded(str(path), "front", row)) == pictures[row]
    assert files._copied_bytes <= limit
    assert len(files._copies) < 3


@pytest.mark.parametrize("use_videos", [False, True])
def test_format_v2_1_is_read_as_it_is(tmp_path: Path, use_videos: bool) -> None:
    write_v2_1(tmp_path, use_videos=use_videos)
    check_steps(ReplayDataset(tmp_path), tolerance=4 if use_videos else 0)


def test_a_missing_video_is_an_error_that_names_it(tmp_path: Path) -> None:
    write_v2_1(tmp_path, use_videos=True)
    next(tmp_path.rglob("episode_000001.mp4")).unlink()
    dataset = ReplayDataset(tmp_path)
    dataset.image(0, "front")
    with pytest.raises(DatasetError, match=r"episode_000001\.mp4"):
        dataset.image(LENGTHS[0], "front")


def test_a_time_behind_the_end_of_a_video_is_an_error(tmp_path: Path) -> None:
    write_video(tmp_path / "short.mp4", [10, 20, 30])
    files = VideoFiles(10.0)
    assert files.picture(str(tmp_path / "short.mp4"), 0.2).mean() == pytest.approx(30, abs=3)
    with pytest.raises(DatasetError, match=r"1\.000 s"):
        files.picture(str(tmp_path / "short.mp4"), 1.0)
    assert files.picture(str(tmp_path / "short.mp4"), 0.1).mean() == pytest.approx(20, abs=3)


def test_shapes_are_understood_in_both_orders() -> None:
    assert picture_shape({"shape": [480, 640, 3], "names": ["height", "width", "channel"]}, "x") == (480, 640, 3)
    assert picture_shape({"shape": [3, 480, 640], "names": ["channels", "height", "width"]}, "x") == (480, 640, 3)
    assert picture_shape({"shape": [3, 480, 640]}, "x") == (480, 640, 3)


def png(grey: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((SIZE, SIZE, 3), grey, np.uint8)).save(buffer, format="PNG")
    return buffer.getvalue()


def write_video(path: Path, greys: list[int]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width = stream.height = SIZE
        stream.pix_fmt = "yuv420p"
        stream.time_base = Fraction(1, 10)
        for grey in greys:
            frame = av.VideoFrame.from_ndarray(np.full((SIZE, SIZE, 3), grey, np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def write_v2_1(root: Path, *, use_videos: bool) -> None:
    """Writes the layout of LeRobot v2.1: a parquet, and per camera a video, for each episode; lists as JSON lines."""
    feature = {"dtype": "video" if use_videos else "image", "shape": [3, SIZE, SIZE]}
    info = {
        "codebase_version": "v2.1", "fps": 10, "total_episodes": len(LENGTHS), "total_frames": sum(LENGTHS),
        "chunks_size": 2, "data_path": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
        "video_path": "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4",
        "features": {
            "observation.images.front": {**feature, "names": ["channels", "height", "width"]},
            "observation.state": {"dtype": "float32", "shape": [3], "names": None},
            "action": {"dtype": "float32", "shape": [3], "names": None},
        },
    }  # fmt: skip
    (root / "meta").mkdir(parents=True)
    (root / "meta" / "info.json").write_text(json.dumps(info))
    tasks = [{"task_index": index, "task": f"task {index}"} for index in range(2)]
    (root / "meta" / "tasks.jsonl").write_text("".join(json.dumps(task) + "\n" for task in tasks))
    lines = [{"episode_index": e, "tasks": [f"task {e % 2}"], "length": length} for e, length in enumerate(LENGTHS)]
    (root / "meta" / "episodes.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    first = 0
    for episode, length in enumerate(LENGTHS):
        steps = np.arange(length)
        state = np.stack([np.full(length, episode), steps, np.zeros(length)], axis=1).astype(np.float32)
        columns = {
            "observation.state": pa.array(state.tolist(), pa.list_(pa.float32(), 3)),
            "action": pa.array((state + 0.5).tolist(), pa.list_(pa.float32(), 3)),
            "timestamp": pa.array((steps / 10).astype(np.float32)),
            "frame_index": pa.array(steps),
            "episode_index": pa.array(np.full(length, episode)),
            "index": pa.array(first + steps),
            "task_index": pa.array(np.full(length, episode % 2)),
        }
        greys = [grey_of(episode, step) for step in range(length)]
        place = f"chunk-{episode // 2:03d}"
        if use_videos:
            name = f"episode_{episode:06d}.mp4"
            write_video(root / "videos" / place / "observation.images.front" / name, greys)
        else:
            columns["observation.images.front"] = pa.array([{"bytes": png(grey), "path": "x.png"} for grey in greys])
        path = root / "data" / place / f"episode_{episode:06d}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table(columns), path)
        first += length
