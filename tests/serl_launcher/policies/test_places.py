from pathlib import Path

import pytest

from serl_launcher.errors import ConfigError
from serl_launcher.policies.places import policy_directory


def put_weights(directory: Path) -> Path:
    directory.mkdir(parents=True)
    (directory / "model.safetensors").touch()
    return directory


def test_a_policy_is_found_by_its_own_directory_and_by_the_checkpoint_around_it(tmp_path: Path):
    policy = put_weights(tmp_path / "00000500" / "policy")
    assert policy_directory(policy) == policy
    assert policy_directory(str(policy.parent)) == policy


def test_openpi_s_jax_layout_is_a_policy_too(tmp_path: Path):
    (tmp_path / "params").mkdir()
    (tmp_path / "params" / "_METADATA").touch()
    assert policy_directory(tmp_path) == tmp_path


def test_a_path_that_does_not_exist_is_said_so(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"checkpoint_path='.*/nowhere'.* there is no directory .*/nowhere"):
        policy_directory(tmp_path / "nowhere")


@pytest.mark.parametrize("named", ["run", "run/checkpoints"])
def test_a_folder_around_several_checkpoints_names_the_newest(tmp_path: Path, named: str):
    for number in (100, 500):
        put_weights(tmp_path / "run" / "checkpoints" / f"{number:08d}" / "policy")
    with pytest.raises(ConfigError, match=r"around 2 of them\. Name one, e\.g\. .*checkpoints/00000500"):
        policy_directory(tmp_path / named)


def test_a_folder_with_something_else_says_what_is_there(tmp_path: Path):
    (tmp_path / "journal").mkdir()
    with pytest.raises(ConfigError, match="it holds journal"):
        policy_directory(tmp_path)
