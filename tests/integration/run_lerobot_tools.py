"""Runs LeRobot's own tools, unmodified, on the dataset `test/replay` below HF_LEROBOT_HOME; prints what came of it.

`run_lerobot_tools.py REPORT read|merge|edit|viz|train ...`; each tool is called as its command line would.
"""

import json
import os
import sys
from pathlib import Path

from lerobot.datasets.lerobot_dataset import LeRobotDataset

HOME = Path(os.environ["HF_LEROBOT_HOME"])
NAME = "test/replay"


def read() -> dict:
    """Opens the dataset and reads every item."""
    return _summary(LeRobotDataset(NAME))


def merge() -> dict:
    """Merges the dataset with itself."""
    from lerobot.datasets.aggregate import aggregate_datasets

    aggregate_datasets(
        [NAME, NAME], "test/merged", roots=[HOME / NAME, HOME / NAME], aggr_root=HOME / "test" / "merged"
    )
    return _summary(LeRobotDataset("test/merged"))


def edit() -> dict:
    """Deletes the first episode with `lerobot-edit-dataset`."""
    from lerobot.scripts.lerobot_edit_dataset import main

    arguments = ["--repo_id", NAME, "--new_repo_id", "test/edited", "--operation.type", "delete_episodes"]
    _call(main, [*arguments, "--operation.episode_indices", "[0]"])
    return _summary(LeRobotDataset("test/edited"))


def viz() -> dict:
    """Saves a recording with `lerobot-dataset-viz`."""
    from lerobot.scripts.lerobot_dataset_viz import main

    arguments = ["--repo-id", NAME, "--root", str(HOME / NAME), "--episode-index", "0", "--num-workers", "0"]
    _call(main, [*arguments, "--save", "1", "--output-dir", str(HOME / "viz")])
    return {"files": [path.suffix for path in (HOME / "viz").iterdir()]}


def train() -> dict:
    """Trains a small ACT for two steps with `lerobot-train`."""
    from lerobot.scripts.lerobot_train import main

    output = HOME / "train"
    arguments = {
        "dataset.repo_id": NAME, "policy.type": "act", "policy.push_to_hub": "false", "policy.device": "cpu",
        "policy.chunk_size": "4", "policy.n_action_steps": "4", "policy.dim_model": "32", "policy.n_heads": "2",
        "policy.dim_feedforward": "32", "policy.n_encoder_layers": "1", "policy.n_vae_encoder_layers": "1",
        "policy.pretrained_backbone_weights": "null", "output_dir": str(output), "batch_size": "2", "steps": "2",
        "num_workers": "0", "log_freq": "1", "save_freq": "2", "eval_freq": "0", "wandb.enable": "false",
    }  # fmt: skip
    _call(main, [f"--{name}={value}" for name, value in arguments.items()])
    return {"checkpoints": sorted(path.name for path in (output / "checkpoints").iterdir())}


def _summary(dataset: LeRobotDataset) -> dict:
    states = [dataset[step]["observation.state"].tolist() for step in range(len(dataset))]
    return {
        "num_episodes": dataset.num_episodes,
        "num_steps": len(dataset),
        "states": states,
        "tasks": [dataset[step]["task"] for step in range(len(dataset))],
        "fps": dataset.fps,
    }


def _call(main: object, arguments: list[str]) -> None:
    sys.argv = ["tool", *arguments]
    main()  # pyright: ignore[reportCallIssue]


if __name__ == "__main__":
    tools = {"read": read, "merge": merge, "edit": edit, "viz": viz, "train": train}
    _, report, *chosen = sys.argv
    Path(report).write_text(json.dumps({name: tools[name]() for name in chosen}))
