"""What the command line of `python -m learner.serve` chooses."""

from pathlib import Path

import pytest

from learner.serve.__main__ import PolicySource
from learner.serve.arguments import API_KEY_VARIABLE, api_key_of, back_end_of, parse, served_directory
from learner.server.assembly import policy_loader
from learner.server.inference import InferenceService
from learner.server.policy_watcher import warm_up
from serl_launcher.config.training import ServerConfig
from serl_launcher.errors import CheckpointError, ConfigError
from serl_launcher.policies.gaussian import GaussianConfig, GaussianPolicy, save_gaussian
from serl_launcher.publication import Publisher
from tests.actor.tiny_checkpoint import save_tiny_policy
from tests.actor.tiny_robot import SPEC


@pytest.mark.parametrize(
    "argv",
    [
        ["--record", "policy:checkpoint", "--policy.dir=x"], ["policy:checkpoint", "--policy.dir=x", "--record"],
        ["--record", "policy:checkpoint", "--policy.dir=x", "--record-dir=policy_records"],
    ],
)  # fmt: skip
def test_record_stands_before_or_behind_the_policy(argv):
    parsed = parse(argv)
    assert (parsed.policy, parsed.record, parsed.record_dir) == ("policy:checkpoint", True, Path("policy_records"))


def test_without_a_policy_nothing_is_downloaded(capsys):
    with pytest.raises(SystemExit):
        parse(["policy:default"])
    assert "nothing is downloaded" in capsys.readouterr().err


def test_the_key_comes_from_the_file_or_the_environment(tmp_path, monkeypatch):
    monkeypatch.delenv(API_KEY_VARIABLE, raising=False)
    assert api_key_of(parse(["policy:checkpoint", "--policy.dir=x"])) is None
    monkeypatch.setenv(API_KEY_VARIABLE, " from the environment ")
    assert api_key_of(parse(["policy:checkpoint", "--policy.dir=x"])) == "from the environment"
    file = tmp_path / "api.key"
    file.write_text("first line\nsecond line\n")
    from_file = parse(["policy:checkpoint", "--policy.dir=x", f"--api-key-file={file}"])
    assert api_key_of(from_file) == "first line"
    file.write_text("")
    with pytest.raises(ConfigError, match="found none"):
        api_key_of(from_file)


def test_the_back_end_is_the_policys_own_but_for_what_is_said():
    assert back_end_of(parse(["policy:checkpoint", "--policy.dir=x"])) == {}
    chosen = parse(
        ["policy:checkpoint", "--policy.dir=x", "--policy.precision=bfloat16", "--no-policy.cuda-graph",
         "--policy.compile"]
    )  # fmt: skip
    assert back_end_of(chosen) == {"precision": "bfloat16", "cuda_graph": False, "compile": True}


def test_publications_are_followed_and_weights_are_loaded(tmp_path):
    weights, publications = tmp_path / "weights", tmp_path / "policies"
    save_tiny_policy(weights, SPEC)
    Publisher(publications).publish(lambda path: save_tiny_policy(path, SPEC), 7)
    assert served_directory(publications) == publications
    assert served_directory(weights) == weights
    with pytest.raises(ConfigError, match=r"--policy\.dir"):
        served_directory(tmp_path / "nothing")
    for directory, version, is_followed in ((publications, 7, True), (weights, 0, False)):
        inference = InferenceService(ServerConfig())
        source = PolicySource(directory, policy_loader(ServerConfig(device="cpu")), inference)
        assert inference.policy_version == version
        assert (source.watcher is not None) == is_followed


def test_the_policy_runs_as_the_command_line_says(tmp_path):
    save_tiny_policy(tmp_path / "pi0", SPEC)
    policy = policy_loader(ServerConfig(device="cpu"), acting={"precision": "bfloat16"})(tmp_path / "pi0")
    assert policy.config.acting.precision == "bfloat16"
    warm_up(policy)
    save_gaussian(GaussianPolicy(GaussianConfig(hidden_dims=(4,)), SPEC), tmp_path / "gaussian")
    with pytest.raises(ConfigError, match="precision"):
        policy_loader(ServerConfig(device="cpu"), acting={"precision": "bfloat16"})(tmp_path / "gaussian")


def test_publications_of_which_none_loads_end_it_with_a_reason(tmp_path):
    Publisher(tmp_path).publish(lambda path: (path / "config.json").write_text("{}") and None, 1)
    with pytest.raises(CheckpointError, match="could be loaded"):
        PolicySource(tmp_path, policy_loader(ServerConfig(device="cpu")), InferenceService(ServerConfig()))
