import numpy as np
import pytest

from serl_launcher.errors import ConfigError
from serl_launcher.transforms import Group, Pipeline, aloha, lbm, robot_names, robot_transforms, yam
from serl_launcher.transforms.actions import AbsoluteActions, DeltaActions, SubsampleActions, make_bool_mask
from serl_launcher.transforms.model import InjectDefaultPrompt, PadStatesAndActions, ResizeImages
from serl_launcher.transforms.statistics import Normalize, Unnormalize, VectorStats
from serl_launcher.transforms.structure import Repack, flatten, text_of

SLOTS = ["base_0_rgb", "left_wrist_0_rgb", "right_wrist_0_rgb"]
OPENINGS = np.array([0.0, 0.25, 0.5, 0.75, 1.0])


def aloha_inputs(**changes):
    return aloha.AlohaInputs()({**aloha.example(), **changes})


def test_the_aloha_gripper_gives_the_published_numbers():
    measured = [-1.079866, -0.513078, -0.140056, 0.223328, 0.945653]
    commanded = [0.553378, 0.671732, 0.790087, 0.908441, 1.026795]
    learned = [-1.168900, -0.640825, -0.112750, 0.415325, 0.943400]
    np.testing.assert_allclose(aloha.gripper_to_model(OPENINGS), measured, atol=1e-6)
    np.testing.assert_allclose(aloha.gripper_command_to_robot(OPENINGS), commanded, atol=1e-6)
    np.testing.assert_allclose(aloha.gripper_command_to_model(OPENINGS), learned, atol=1e-6)


def test_aloha_flips_joints_and_converts_grippers_both_ways():
    actions = np.random.default_rng(0).uniform(-1, 1, (5, 14)).astype(np.float32)
    inside = aloha_inputs(state=np.full(14, 0.5), actions=actions)
    np.testing.assert_allclose(inside["state"][:7], [0.5, -0.5, -0.5, 0.5, 0.5, 0.5, -0.140056], atol=1e-6)
    padded = np.pad(inside["actions"], [(0, 0), (0, 18)])
    np.testing.assert_allclose(aloha.AlohaOutputs()({"actions": padded})["actions"], actions, atol=1e-5)


def test_an_aloha_camera_that_is_missing_is_masked_and_an_unknown_one_refused():
    high = np.full((3, 8, 10), 7, np.uint8)
    inside = aloha_inputs(images={"cam_high": high})
    assert list(inside["image"]) == SLOTS
    assert [bool(valid) for valid in inside["image_mask"].values()] == [True, False, False]
    assert inside["image"]["base_0_rgb"].shape == (8, 10, 3)
    with pytest.raises(ValueError, match="cam_head"):
        aloha_inputs(images={"cam_high": high, "cam_head": high})


def test_without_adaptation_aloha_passes_values_through():
    inside = aloha.AlohaInputs(adapt_to_pi=False)({**aloha.example(), "state": np.arange(14.0)})
    np.testing.assert_array_equal(inside["state"], np.arange(14.0))
    actions = np.arange(64.0).reshape(2, 32)
    np.testing.assert_array_equal(
        aloha.AlohaOutputs(adapt_to_pi=False)({"actions": actions})["actions"], actions[:, :14]
    )


@pytest.mark.parametrize("name", robot_names())
def test_every_robot_has_an_example_that_its_transform_takes(name):
    robot = robot_transforms(name)
    group = robot.group("pi0")
    inside = Pipeline(robot=group).from_robot(robot.example())
    assert inside["state"].shape == (robot.state_dim,)
    assert inside["state"].dtype == np.float32
    assert inside["image"].keys() == inside["image_mask"].keys()
    assert all(image.dtype == np.uint8 and image.shape == (224, 224, 3) for image in inside["image"].values())
    assert isinstance(inside["prompt"], str)
    outside = Pipeline(robot=group).to_robot({"actions": np.zeros((15, 32), np.float32), "state": inside["state"]})
    assert set(outside) == {"actions"}
    assert outside["actions"].shape == (15, robot.action_dim)


@pytest.mark.parametrize(("model", "valid"), [("pi0", [True, True, False]), ("pi0_fast", [True, True, True])])
@pytest.mark.parametrize("name", ["libero", "ur5"])
def test_the_empty_slot_counts_only_for_fast(name, model, valid):
    robot = robot_transforms(name)
    inside = Pipeline(robot=robot.group(model)).from_robot(robot.example())
    assert [bool(each) for each in inside["image_mask"].values()] == valid
    assert list(inside["image"]) == SLOTS


def test_droid_fills_the_slots_of_each_model_and_takes_a_scalar_gripper():
    robot = robot_transforms("droid")
    example = {**robot.example(), "observation/gripper_position": np.float32(0.25), "prompt": b"pick"}
    inside = Pipeline(robot=robot.group("pi05")).from_robot(example)
    assert inside["state"][-1] == 0.25
    assert inside["prompt"] == "pick"
    assert [bool(valid) for valid in inside["image_mask"].values()] == [True, True, False]
    fast = Pipeline(robot=robot.group("pi0_fast")).from_robot(example)
    assert {slot: bool(valid) for slot, valid in fast["image_mask"].items()} == {
        "base_0_rgb": True, "base_1_rgb": True, "wrist_0_rgb": True
    }  # fmt: skip


def picture(number):
    return np.full((4, 5, 3), number, np.uint8)


YAM_FORMS = {
    "reader": {
        "observation/images/scene_camera_t0": picture(1), "observation/images/left_wrist_camera_t0": picture(2),
        "observation/images/right_wrist_camera_t0": picture(3),
        "observation/proprioception/yam__joint_pos": np.arange(14.0)[None],
        "actions/yam__action_joints": np.arange(42.0).reshape(3, 14),
    },
    "nested": {
        "observation": {
            "images": {
                "scene_camera_t0": picture(1), "left_wrist_camera_t0": picture(2), "right_wrist_camera_t0": picture(3)
            },
            "proprioception": {"yam__joint_pos": np.stack([np.zeros(14), np.arange(14.0)])},
        },
        "actions": {"yam__action_joints": np.arange(42.0).reshape(3, 14)},
    },
    "sibling": {
        "observation/image_head": picture(1), "observation/image_left_wrist": picture(2),
        "observation/image_right_wrist": picture(3), "observation/state": np.arange(14.0),
        "actions": np.arange(42.0).reshape(3, 14),
    },
    "lerobot": {
        "observation.images.scene_camera": picture(1), "observation.images.left_wrist_camera": picture(2),
        "observation.images.right_wrist_camera": picture(3), "observation.state": np.arange(14.0),
        "action": np.arange(42.0).reshape(3, 14),
    },
    "bare": {
        "scene_camera": picture(1), "left_wrist_camera": picture(2), "right_wrist_camera": picture(3),
        "yam__joint_pos": np.arange(14.0), "yam__action_joints": np.arange(42.0).reshape(3, 14),
    },
}  # fmt: skip


@pytest.mark.parametrize("form", list(YAM_FORMS))
def test_yam_takes_its_keys_in_every_form_and_changes_no_value(form):
    inside = yam.YamInputs()({**YAM_FORMS[form], "prompt": "sort"})
    assert {slot: int(image[0, 0, 0]) for slot, image in inside["image"].items()} == dict(
        zip(SLOTS, (1, 2, 3), strict=True)
    )
    assert all(inside["image_mask"].values())
    np.testing.assert_array_equal(inside["state"], np.arange(14, dtype=np.float32))
    np.testing.assert_array_equal(inside["actions"], np.arange(42, dtype=np.float32).reshape(3, 14))
    assert inside["prompt"] == "sort"
    outside = yam.YamOutputs()({"actions": np.arange(64.0).reshape(2, 32)})["actions"]
    np.testing.assert_array_equal(outside, [np.arange(14), np.arange(32, 46)])


def test_yam_names_its_dimensions_and_never_makes_actions_relative():
    assert yam.DIMENSIONS[0] == "left_j0"
    assert yam.DIMENSIONS[-1] == "right_gripper"
    with pytest.raises(ConfigError):
        robot_transforms("yam").group("pi05", delta_actions=True)


def test_a_yam_camera_that_is_missing_is_named_by_the_readers_key():
    sample = {key: value for key, value in yam.example().items() if "left_wrist" not in key}
    with pytest.raises(KeyError, match="observation/images/left_wrist_camera_t0"):
        yam.YamInputs()(sample)


@pytest.mark.parametrize("is_bare", [False, True])
def test_lbm_joins_its_fields_in_their_order(is_bare):
    folders = ("", "", "") if is_bare else ("observation/images/", "observation/proprioception/", "actions/")
    sample = {f"{folders[0]}{name}_t0": picture(number) for number, name in enumerate(lbm.CAMERA_NAMES)}
    first = 0
    for name, width in zip(lbm.PROPRIOCEPTION_FIELDS, (3, 3, 6, 6), strict=True):
        sample[f"{folders[1]}{name}"] = np.arange(first, first + width, dtype=np.float32)[None]
        first += width
    first = 0
    for name, width in zip(lbm.ACTION_FIELDS, (3, 3, 6, 6, 1, 1), strict=True):
        rows = np.arange(first, first + width, dtype=np.float32) + 100 * np.arange(15, dtype=np.float32)[:, None]
        sample[f"{folders[2]}{name}"] = rows[:, 0] if width == 1 else rows
        first += width
    inside = lbm.LbmInputs()({**sample, "prompt": "hang the mug"})
    np.testing.assert_array_equal(inside["state"], np.arange(18))
    np.testing.assert_array_equal(inside["actions"], np.arange(20) + 100 * np.arange(15)[:, None])
    assert {name: int(image[0, 0, 0]) for name, image in inside["image"].items()} == {
        f"{name}_t0": number for number, name in enumerate(lbm.CAMERA_NAMES)
    }
    assert all(inside["image_mask"].values())
    outside = lbm.LbmOutputs()({"actions": np.arange(64.0).reshape(2, 32)})["actions"]
    np.testing.assert_array_equal(outside, [np.arange(20), np.arange(32, 52)])


def test_a_missing_key_is_named_with_what_came():
    with pytest.raises(KeyError, match=r"DROID expects 'observation/gripper_position'.*'x'"):
        Pipeline(robot=robot_transforms("droid").group("pi0")).from_robot({"x": 1})


def test_a_misspelt_robot_is_answered_with_the_nearest_name():
    with pytest.raises(ConfigError, match="Did you mean 'libero'"):
        robot_transforms("libreo")


def test_relative_actions_are_undone_exactly_and_grippers_stay():
    mask = make_bool_mask(6, -1)
    assert mask.tolist() == [True] * 6 + [False]
    sample = {"state": np.arange(7.0), "actions": np.ones((2, 8))}
    relative = DeltaActions(mask)(sample)
    np.testing.assert_array_equal(relative["actions"][0], [1, 0, -1, -2, -3, -4, 1, 1])
    np.testing.assert_array_equal(AbsoluteActions(mask)(relative)["actions"], sample["actions"])
    assert sample["actions"][0, 0] == 1


@pytest.mark.parametrize("kind", ["zscore", "quantile"])
def test_normalisation_is_undone_and_hand_computed(kind):
    stats = {
        "state": VectorStats(
            mean=np.array([1.0, 2.0]), std=np.array([0.5, 2.0]), q01=np.array([0.0, -1.0]), q99=np.array([2.0, 3.0])
        )
    }
    sample = {"state": np.array([2.0, 1.0])}
    normalized = Normalize(stats=stats, kind=kind)(sample)
    expected = [2.0, -0.5] if kind == "zscore" else [1.0, 0.0]
    np.testing.assert_allclose(normalized["state"], expected, atol=1e-5)
    np.testing.assert_allclose(Unnormalize(stats=stats, kind=kind)(normalized)["state"], sample["state"], atol=1e-9)
    with pytest.raises(KeyError, match="state"):
        Unnormalize(stats=stats, kind=kind)({"actions": np.zeros(2)})


def test_the_stages_run_in_order_and_backwards_on_the_way_out():
    said = []

    def spy(name):
        def step(sample):
            said.append(name)
            return dict(sample)

        return step

    stats = {"actions": VectorStats(mean=np.zeros(2), std=np.ones(2))}
    pipeline = Pipeline(
        repack=Group(inputs=(spy("repack"),), outputs=(spy("unpack"),)),
        robot=Group(inputs=(spy("robot in"),), outputs=(spy("robot out"),)),
        model=Group(inputs=(spy("model in"),), outputs=(spy("model out"),)),
        stats=stats,
    )
    pipeline.from_dataset({"actions": np.zeros((1, 2))})
    pipeline.to_dataset({"actions": np.zeros((1, 2))})
    assert said == ["repack", "robot in", "model in", "model out", "robot out", "unpack"]


def test_the_model_stage_resizes_pads_and_fills_in_the_prompt():
    robot = robot_transforms("aloha")
    model = Group(inputs=(ResizeImages(32, 32), PadStatesAndActions(32)))
    pipeline = Pipeline(robot=robot.group("pi0", delta_actions=True), model=model, default_prompt="fold the towel")
    example = {key: value for key, value in robot.example().items() if key != "prompt"}
    inside = pipeline.from_robot({**example, "actions": np.zeros((4, 14))})
    assert inside["prompt"] == "fold the towel"
    assert inside["state"].shape == (32,)
    assert inside["actions"].shape == (4, 32)
    assert inside["image"]["base_0_rgb"].shape == (32, 32, 3)
    assert InjectDefaultPrompt("other")({"prompt": "own"})["prompt"] == "own"


def test_repack_renames_nested_paths_and_names_what_is_missing():
    sample = {"observation.state": 1, "observation.images.top": 2, "action": 3, "rest": 4}
    assert aloha.REPACK(sample) == {"images": {"cam_high": 2}, "state": 1, "actions": 3}
    assert Repack({"x": "a/b"})({"a": {"b": 5}}) == {"x": 5}
    assert flatten({"a": {"b": 1}}) == {"a/b": 1}
    with pytest.raises(KeyError, match="a/c"):
        Repack({"x": "a/c"})({"a": {"b": 5}})


@pytest.mark.parametrize("prompt", ["pick", b"pick", np.array("pick"), np.array(["pick"]), np.array(b"pick")])
def test_a_prompt_comes_in_many_forms(prompt):
    assert text_of(prompt) == "pick"


def test_subsampling_keeps_every_second_action():
    assert SubsampleActions(2)({"actions": np.arange(5)})["actions"].tolist() == [0, 2, 4]
