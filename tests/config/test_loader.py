import subprocess
import sys
from pathlib import Path

import pytest

from serl_launcher.config import RunConfig, load
from serl_launcher.config.loader import group_choices
from serl_launcher.config.schema_text import known_keys
from serl_launcher.errors import ConfigError

MAIN = "import sys; from serl_launcher.config import load, run_main; run_main(lambda: load(sys.argv[1:]) and None)"

CHOICES = [(group, choice) for group, choices in group_choices().items() for choice in choices]


def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([sys.executable, "-c", MAIN, *arguments], capture_output=True, text=True, check=False)


@pytest.mark.parametrize(("group", "choice"), CHOICES)
def test_every_choice_of_every_group_composes(group: str, choice: str) -> None:
    assert isinstance(load([f"{group}={choice}"]), RunConfig)


def test_the_groups_that_users_know_exist() -> None:
    choices = group_choices()
    assert {"sft_pi0", "reject_sampling_pi0", "data_collection"} <= set(choices["algo"])
    assert {"pi0", "pi0_small", "pi0_tiny"} <= set(choices["policy"])
    assert "sim_pnp" in choices["task"]


def test_an_override_reaches_the_object() -> None:
    config = load(["algo=sft_pi0", "environment.max_episode_length=20", "training.mixed_precision=bf16", "ip=10.0.0.5"])
    assert config.algo.name == "sft_pi0"
    assert config.environment.max_episode_length == 20
    assert config.training.mixed_precision == "bf16"
    assert config.ip == "10.0.0.5"


def test_an_override_beats_every_file() -> None:
    assert load(["policy=pi0_tiny", "policy.horizon=7"]).policy.horizon == 7


def test_what_the_command_line_sets_is_told_from_what_files_say() -> None:
    config = load(["policy=pi0_tiny", "policy.horizon=7", "+actor.rewards.goal={j0: 0.1}"])
    assert config.explicit == {"policy.horizon", "actor.rewards.goal"}
    assert "explicit" not in known_keys()


def test_pi0_has_the_published_sizes() -> None:
    policy = load(["policy=pi0"]).policy
    assert (policy.vision.width, policy.vision.depth, policy.language.width, policy.expert.width) == (
        1152,
        27,
        2048,
        1024,
    )


@pytest.mark.parametrize("name", ["pi0", "pi05", "pi0_lora", "pi05_lora"])
def test_the_published_models_act_in_half_precision(name: str) -> None:
    assert load([f"policy={name}"]).policy.acting.precision == "bfloat16"


def test_an_unknown_key_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"'environment\.max_episode_lenght'.*'environment\.max_episode_length'"):
        load(["environment.max_episode_lenght=20"])


def test_an_unknown_key_without_its_section_names_the_whole_path() -> None:
    with pytest.raises(ConfigError, match=r"'lr'.*'algo\.optimizer\.lr'"):
        load(["lr=0.1"])


def test_a_wrong_type_names_key_and_value() -> None:
    with pytest.raises(ConfigError, match=r"environment\.max_episode_length.*'abc'"):
        load(["environment.max_episode_length=abc"])


def test_an_unknown_choice_lists_the_choices() -> None:
    with pytest.raises(ConfigError, match="data_collection, reject_sampling_pi0, reward_classifier"):
        load(["algo=foo"])


def test_a_value_that_contradicts_the_schema_is_refused() -> None:
    with pytest.raises(ConfigError, match="resume must be"):
        load(["resume=perhaps"])


@pytest.mark.parametrize("argument", ["~algo", "seed=1,2", "nonsense", "--nonsense", "+seeed=1", "a=b=c"])
def test_anything_but_one_value_for_a_known_key_is_refused(argument: str) -> None:
    with pytest.raises(ConfigError):
        load([argument])


@pytest.mark.parametrize(
    "text", ["/data/run=3/with space", "it's", "007", "1e5", "a,b", "[x]", "back\\slash", "end\\", "a\\'b"]
)
def test_text_is_taken_literally(text: str) -> None:
    assert load([f"checkpoint_path={text}"]).checkpoint_path == text


def test_null_clears_an_optional_text() -> None:
    assert load(["checkpoint_path=null"]).checkpoint_path is None


def test_free_options_need_no_declaration() -> None:
    assert load(["environment.options.friction=0.3"]).environment.options == {"friction": 0.3}


def test_free_options_may_be_given_together() -> None:
    options = load(["environment.options={address: robot-pc, port: 5590, keys_dir: /keys/robots/actor}"])
    assert options.environment.options == {"address": "robot-pc", "port": 5590, "keys_dir": "/keys/robots/actor"}


def test_a_wrong_command_line_ends_with_one_message_and_status_2() -> None:
    result = run("environment.hzz=3")
    assert result.returncode == 2
    assert "environment.hz" in result.stderr
    assert "Traceback" not in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_help_lists_groups_and_every_key() -> None:
    result = run("--help")
    assert result.returncode == 0
    assert "sft_pi0" in result.stdout
    sections = {key.rpartition(".")[0] for key in known_keys()}
    assert [key for key in known_keys() if key not in sections and f"{key} = " not in result.stdout] == []


def test_cfg_prints_what_was_composed() -> None:
    result = run("--cfg", "seed=77")
    assert result.returncode == 0
    assert "seed: 77" in result.stdout


def test_loading_needs_no_machine_learning_stack() -> None:
    code = (
        "import sys; from serl_launcher.config import load; load([]); "
        "print({'torch', 'lerobot', 'pyarrow'} & set(sys.modules))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "set()"


def test_no_default_is_repeated_in_a_file() -> None:
    default = RunConfig()
    for choice in group_choices()["algo"]:
        assert load([f"algo={choice}"]).algo.name == {"rlpd": "sac", "sac_pi0_path": "sac_pi0"}.get(choice, choice)
    assert default.transport == load([]).transport


def test_two_loads_in_one_process_do_not_disturb_each_other(tmp_path: Path) -> None:
    first = load([f"output_dir={tmp_path}", "seed=1"])
    second = load(["seed=2"])
    assert (first.seed, second.seed) == (1, 2)
    assert first.output_dir == str(tmp_path)
