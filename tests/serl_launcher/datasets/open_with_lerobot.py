"""Opens dataset directories with stock LeRobot and writes what it read as JSON: `open_with_lerobot.py DIR...`."""

import json
import sys
from pathlib import Path

import torch
from lerobot.datasets.lerobot_dataset import LeRobotDataset


def read(root: str) -> dict:
    dataset = LeRobotDataset("test/replay", root=root)
    items = [item for batch in torch.utils.data.DataLoader(dataset, batch_size=4) for item in batch["index"].tolist()]
    last = dataset[len(dataset) - 1]
    chunked = LeRobotDataset("test/replay", root=root, delta_timestamps={"action": [0.0, 1 / dataset.fps]})[
        len(dataset) - 1
    ]
    return {
        "num_episodes": dataset.num_episodes,
        "num_steps": len(dataset),
        "indices": items,
        "last_task": last["task"],
        "last_state": last["observation.state"].tolist(),
        "last_image_mean": (255 * last["observation.images.cam_0"].mean(dim=(1, 2))).tolist(),
        "last_success": bool(last["next.success"]),
        "last_action_is_pad": chunked["action_is_pad"].tolist(),
        "stats_count": int(dataset.meta.stats["action"]["count"][0]),
        "outcomes": list(dataset.meta.episodes["outcome"])[: dataset.num_episodes],
    }


if __name__ == "__main__":
    found = {root: read(root) for root in sys.argv[2:]}
    Path(sys.argv[1]).write_text(json.dumps(found))
