"""Opens dataset directories with stock LeRobot, in one process for all tests: importing LeRobot is what takes long.

As a script it answers each line on standard input, a JSON list of directories, by one line: what it read of each.
"""

import atexit
import functools
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[3]


def open_with_lerobot(roots: list[Path]) -> list[dict]:
    """Returns what stock LeRobot reads of each dataset."""
    reader = _reader()
    assert reader.stdin is not None
    assert reader.stdout is not None
    reader.stdin.write(json.dumps([str(root) for root in roots]) + "\n")
    reader.stdin.flush()
    answer = reader.stdout.readline()
    assert answer, f"LeRobot ended with {reader.wait()}; what it said is above"
    found = json.loads(answer)
    assert isinstance(found, list), found
    return found


@functools.cache
def _reader() -> subprocess.Popen[str]:
    cache = tempfile.mkdtemp(prefix="lerobot-cache-")
    environment = {
        **os.environ, "HF_DATASETS_CACHE": cache, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(ROOT),
    }  # fmt: skip
    command = [sys.executable, "-W", "ignore", str(Path(__file__).absolute())]
    reader = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def stop() -> None:
        reader.communicate()
        shutil.rmtree(cache, ignore_errors=True)

    atexit.register(stop)
    return reader


def _serve() -> None:
    import torch
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    def read(root: str) -> dict:
        dataset = LeRobotDataset("test/replay", root=root, video_backend="pyav")
        loader = torch.utils.data.DataLoader(dataset, batch_size=4)
        items = [item for batch in loader for item in batch["index"].tolist()]
        last = dataset[len(dataset) - 1]
        chunked = LeRobotDataset(
            "test/replay", root=root, delta_timestamps={"action": [0.0, 1 / dataset.fps]}, video_backend="pyav"
        )
        episodes, stats = dataset.meta.episodes, dataset.meta.stats
        assert episodes is not None
        assert stats is not None
        return {
            "num_episodes": dataset.num_episodes,
            "num_steps": len(dataset),
            "indices": items,
            "last_task": last["task"],
            "last_state": last["observation.state"].tolist(),
            "last_image_mean": (255 * last["observation.images.cam_0"].mean(dim=(1, 2))).tolist(),
            "last_success": bool(last["next.success"]),
            "last_action_is_pad": chunked[len(dataset) - 1]["action_is_pad"].tolist(),
            "stats_count": int(stats["action"]["count"][0]),
            "outcomes": list(episodes["outcome"])[: dataset.num_episodes],
        }

    answers, sys.stdout = sys.stdout, sys.stderr  # LeRobot may print.
    for line in sys.stdin:
        try:
            found: object = [read(root) for root in json.loads(line)]
        except Exception as exc:  # It ends one test, not the reader.
            found = f"{type(exc).__name__}: {exc}"
        answers.write(json.dumps(found) + "\n")
        answers.flush()


if __name__ == "__main__":
    _serve()
