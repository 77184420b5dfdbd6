import pytest

from learner.runs import check_resume
from serl_launcher.config import RunConfig
from serl_launcher.errors import ConfigError


@pytest.mark.parametrize("resume", ["auto", "never"])
def test_a_new_run_may_start(tmp_path, resume):
    assert not check_resume(RunConfig(output_dir=str(tmp_path), resume=resume), [tmp_path / "journal"])


@pytest.mark.parametrize("resume", ["auto", "must"])
def test_an_existing_run_may_continue(tmp_path, resume):
    assert check_resume(RunConfig(output_dir=str(tmp_path), resume=resume), [tmp_path])


def test_never_refuses_an_existing_run(tmp_path):
    with pytest.raises(ConfigError, match="Nothing was changed"):
        check_resume(RunConfig(output_dir=str(tmp_path), resume="never"), [tmp_path])


def test_must_refuses_a_new_run(tmp_path):
    with pytest.raises(ConfigError, match="holds no run"):
        check_resume(RunConfig(output_dir=str(tmp_path), resume="must"), [tmp_path / "journal"])
