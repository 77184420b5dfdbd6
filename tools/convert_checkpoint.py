"""Converts a policy between layouts: `python -m tools.convert_checkpoint --from DIR --to DIR --format lerobot`.

The layout of --from is recognised: hiors, LeRobot, openpi for PyTorch, openpi for JAX (a checkpoint step). Every tensor
is checked, before and after: the written policy is read back and compared with what was read.
"""

import argparse
import dataclasses
import logging
import sys
from pathlib import Path

import msgspec
import torch

from learner.serve.robots import policy_spec
from serl_launcher.errors import CheckpointError, HiorsError
from serl_launcher.policies.formats import (
    WRITERS,
    StoredPolicy,
    check_weights,
    format_of,
    merged,
    read_stored,
    write_stored,
)
from serl_launcher.policies.normalization import read_norm_stats
from serl_launcher.specs import RobotSpec
from serl_launcher.transforms import robot_names

logger = logging.getLogger(__name__)

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def convert(source: Path, target: Path, layout: str, changes: argparse.Namespace) -> StoredPolicy:
    """Writes the policy of `source` into `target` in another layout, and returns what was written.

    Raises:
        CheckpointError: `target` holds something already, or the policy does not fit its sizes or the layout.
    """
    if target.exists() and any(target.iterdir()):
        raise CheckpointError(f"Expected {target} to be empty or absent. Remove it, or choose another directory.")
    found = format_of(source)
    logger.info("%s is a policy in the layout of %s.", source, found)
    stored = _changed(read_stored(source), changes)
    write_stored(stored, target, layout)
    _verify(stored if layout == "hiors" else merged(stored), target)
    logger.info(
        "Wrote %s, %d tensors, in the layout of %s: %s.", stored.config.name, len(stored.weights), layout, target
    )
    return stored


def main(arguments: list[str]) -> int:
    """Runs the tool; returns 0 where all is well."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.convert_checkpoint", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--from", dest="source", type=Path, required=True, help="directory of the policy")
    parser.add_argument("--to", dest="target", type=Path, required=True, help="new directory")
    parser.add_argument("--format", choices=sorted(WRITERS), required=True, help="layout to write")
    parser.add_argument("--dtype", choices=sorted(DTYPES), help="of the written weights; default: as they are")
    parser.add_argument(
        "--robot", help=f"spec.json of the robot, where the source names none, or one of {', '.join(robot_names())}"
    )
    parser.add_argument("--norm-stats", type=Path, help="norm_stats.json to use instead of the source's")
    parser.add_argument("--tokenizer", type=Path, help="SentencePiece model, where the source has none")
    parser.add_argument("--horizon", type=int, help="actions in one chunk, where the source does not say (50)")
    parser.add_argument(
        "--image-keys", nargs="+", help="the robot's cameras, in the order in which the policy sees them"
    )
    chosen = parser.parse_args(arguments)
    try:
        convert(chosen.source, chosen.target, chosen.format, chosen)
    except HiorsError as exc:
        sys.stderr.write(f"{exc}\n")
        return 1
    return 0


def _changed(stored: StoredPolicy, changes: argparse.Namespace) -> StoredPolicy:
    check_weights(stored.config, stored.weights)
    if changes.dtype is not None:
        dtype = DTYPES[changes.dtype]
        stored.weights = {name: tensor.to(dtype) for name, tensor in stored.weights.items()}
    if changes.robot is not None:
        stored.spec = _robot(changes.robot)
    if changes.norm_stats is not None:
        stored.norm_stats = read_norm_stats(changes.norm_stats)
    if changes.tokenizer is not None:
        stored.tokenizer = _content(changes.tokenizer)
    asked = {"horizon": changes.horizon, "image_keys": changes.image_keys}
    given = {name: value for name, value in asked.items() if value is not None}
    stored.config = dataclasses.replace(stored.config, **given)
    if stored.spec is not None:
        _compare_cameras(stored.config.image_keys, stored.spec)
    return stored


def _compare_cameras(seen: list[str], robot: RobotSpec) -> None:
    """Says which cameras the policy will do without; raises CheckpointError where none is left."""
    absent = [name for name in seen if name not in robot.camera_names]
    unseen = [name for name in robot.camera_names if seen and name not in seen]
    if seen and len(absent) == len(seen):
        raise CheckpointError(
            f"The policy sees the cameras {seen}, robot {robot.name!r} has {list(robot.camera_names)}. Say which of "
            "the robot's it shall see, in the policy's order: --image-keys NAME ..."
        )
    if absent:
        logger.warning("Robot %s lacks the cameras %s, which the policy has seen.", robot.name, ", ".join(absent))
    if unseen:
        logger.warning("The policy does not see the cameras %s (--image-keys chooses).", ", ".join(unseen))


def _robot(name: str) -> RobotSpec:
    """Returns the robot of a file, or what a published policy for a known robot takes."""
    if name in robot_names():
        return policy_spec(name)
    return msgspec.json.decode(_content(Path(name)), type=RobotSpec)


def _content(path: Path) -> bytes:
    if not path.is_file():
        raise CheckpointError(f"Expected a file at {path}, found none.")
    return path.read_bytes()


def _verify(written: StoredPolicy, target: Path) -> None:
    """Raises CheckpointError where the target does not give back what was written."""
    back = read_stored(target).weights
    different = [
        name for name, tensor in written.weights.items() if not torch.equal(back.get(name, tensor[:0]), tensor)
    ]
    if different or back.keys() != written.weights.keys():
        raise CheckpointError(
            f"{target} does not give back what was written ({len(different)} tensors differ, among them "
            f"{different[:3]}). The disk may be full or damaged; remove the directory and try again."
        )


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    sys.exit(main(sys.argv[1:]))
