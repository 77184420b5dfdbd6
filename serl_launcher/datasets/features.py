"""The only home of LeRobot feature names: how a robot's steps are called and typed in a LeRobot v3 dataset."""

import json

import pyarrow as pa

from serl_launcher.specs import RobotSpec

IMAGE_PREFIX = "observation.images."
STATE = "observation.state"
ACTION = "action"
REWARD = "next.reward"
DONE = "next.done"
"""The episode ended with this step, by termination or by truncation (as LeRobot's own recorder writes it)."""
TRUNCATED = "next.truncated"
"""The step ended the episode by a limit, not by the task: bootstrapping goes on."""
SUCCESS = "next.success"
"""True on the last step of an episode whose newest label is `success`."""
SOURCE = "source"
"""Who chose the action: a `serl_launcher.types.Source`."""
POLICY_VERSION = "policy_version"
PROPOSAL = "proposal"
"""What the policy proposed; the executed action where `has_proposal` is False."""
HAS_PROPOSAL = "has_proposal"
"""Whether a human overrode a proposal at this step."""
WALL_TIME = "wall_time_s"
MONOTONIC_TIME = "monotonic_s"

TIMESTAMP = "timestamp"
FRAME_INDEX = "frame_index"
EPISODE_INDEX = "episode_index"
INDEX = "index"
TASK_INDEX = "task_index"

OUTCOME = "outcome"
EPISODE_ID = "episode_id"

UNSUMMARISED = frozenset({PROPOSAL, HAS_PROPOSAL, WALL_TIME, MONOTONIC_TIME})
"""Features without statistics; SUCCESS has its own, for a late label changes them."""

_SCALARS = {
    REWARD: "float32",
    DONE: "bool",
    TRUNCATED: "bool",
    SUCCESS: "bool",
    SOURCE: "int64",
    POLICY_VERSION: "int64",
    HAS_PROPOSAL: "bool",
    WALL_TIME: "float64",
    MONOTONIC_TIME: "float64",
    TIMESTAMP: "float32",
    FRAME_INDEX: "int64",
    EPISODE_INDEX: "int64",
    INDEX: "int64",
    TASK_INDEX: "int64",
}
_ARROW_TYPES = {"float32": pa.float32(), "float64": pa.float64(), "int64": pa.int64(), "bool": pa.bool_()}
_IMAGE_TYPE = pa.struct([pa.field("bytes", pa.binary()), pa.field("path", pa.string())])


def image_feature(camera: str) -> str:
    """Returns the feature name of a camera, e.g. `observation.images.cam_high`."""
    return IMAGE_PREFIX + camera


def lerobot_features(spec: RobotSpec) -> dict[str, dict[str, object]]:
    """Returns the `features` entry of info.json: name to dtype, shape and names."""
    features: dict[str, dict[str, object]] = {
        image_feature(camera.name): {
            "dtype": "image",
            "shape": list(camera.shape),
            "names": ["height", "width", "channels"],
        }
        for camera in spec.cameras
    }
    features[STATE] = {"dtype": "float32", "shape": [spec.state_dim], "names": list(spec.state_names)}
    for name in (ACTION, PROPOSAL):
        features[name] = {"dtype": "float32", "shape": [spec.action_dim], "names": list(spec.action_names)}
    for name, dtype in _SCALARS.items():
        features[name] = {"dtype": dtype, "shape": [1], "names": None}
    return features


def data_schema(spec: RobotSpec) -> pa.Schema:
    """Returns the Arrow schema of a data file, with the metadata by which `datasets` finds images and vectors."""
    fields: list[pa.Field] = []
    described: dict[str, dict[str, object]] = {}
    for camera in spec.cameras:
        fields.append(pa.field(image_feature(camera.name), _IMAGE_TYPE))
        described[image_feature(camera.name)] = {"_type": "Image"}
    for name, width in ((STATE, spec.state_dim), (ACTION, spec.action_dim), (PROPOSAL, spec.action_dim)):
        if width == 1:
            fields.append(pa.field(name, pa.float32()))
            described[name] = {"dtype": "float32", "_type": "Value"}
            continue
        fields.append(pa.field(name, pa.list_(pa.float32(), width)))
        described[name] = {"feature": {"dtype": "float32", "_type": "Value"}, "length": width, "_type": "Sequence"}
    for name, dtype in _SCALARS.items():
        fields.append(pa.field(name, _ARROW_TYPES[dtype]))
        described[name] = {"dtype": dtype, "_type": "Value"}
    return pa.schema(fields, {"huggingface": json.dumps({"info": {"features": described}})})


def final_schema(spec: RobotSpec) -> pa.Schema:
    """Returns the Arrow schema of an episode's final observation: one row, images, state and episode id."""
    fields = [pa.field(image_feature(camera.name), _IMAGE_TYPE) for camera in spec.cameras]
    fields += [pa.field(STATE, pa.list_(pa.float32(), spec.state_dim)), pa.field(EPISODE_ID, pa.string())]
    return pa.schema(fields)


def summarised_features(spec: RobotSpec) -> list[str]:
    """Returns the features that have statistics, in the order of the data file."""
    return [name for name in lerobot_features(spec) if name not in UNSUMMARISED]


def episode_schema(spec: RobotSpec) -> pa.Schema:
    """Returns the Arrow schema of an episode's metadata: LeRobot's columns, ours, and statistics per feature."""
    fields = [
        pa.field(EPISODE_INDEX, pa.int64()),
        pa.field("tasks", pa.list_(pa.string())),
        pa.field("length", pa.int64()),
        pa.field("data/chunk_index", pa.int64()),
        pa.field("data/file_index", pa.int64()),
        pa.field("dataset_from_index", pa.int64()),
        pa.field("dataset_to_index", pa.int64()),
        pa.field("meta/episodes/chunk_index", pa.int64()),
        pa.field("meta/episodes/file_index", pa.int64()),
        pa.field(EPISODE_ID, pa.string()),
        pa.field("actor_id", pa.string()),
        pa.field("seed", pa.int64()),
        pa.field(OUTCOME, pa.string()),
        pa.field("labelled_by", pa.string()),
        pa.field("label_wall_time_s", pa.float64()),
        pa.field("started_wall_time_s", pa.float64()),
        pa.field("num_intervention_steps", pa.int64()),
        pa.field("episode_return", pa.float64()),
    ]
    for feature in summarised_features(spec):
        value = pa.list_(pa.float64())
        if feature.startswith(IMAGE_PREFIX):
            value = pa.list_(pa.list_(value))
        for statistic in ("min", "max", "mean", "std", "q01", "q10", "q50", "q90", "q99"):
            fields.append(pa.field(f"stats/{feature}/{statistic}", value))
        fields.append(pa.field(f"stats/{feature}/count", pa.list_(pa.int64())))
    return pa.schema(fields)


def without_described(schema: pa.Schema, names: list[str]) -> pa.Schema:
    """Returns a data schema whose metadata does not mention the features `names` any more."""
    metadata = dict(schema.metadata or {})
    described = json.loads(metadata.get(b"huggingface", b"{}"))
    for name in names:
        described.get("info", {}).get("features", {}).pop(name, None)
    return schema.with_metadata({**metadata, b"huggingface": json.dumps(described).encode()})
