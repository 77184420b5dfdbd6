import pytest
import torch

from learner.trainer.checkpoints import Checkpoints, TrainerState, policy_of, read_state
from serl_launcher import failpoints
from serl_launcher.errors import CheckpointError
from tests.process_death import dies


def save(checkpoints, num_updates, value=1.0):
    state = TrainerState(
        tensors={"a/b": torch.full((2,), value)}, algorithm={"num_updates": num_updates},
        mixture={"rng": {"state": 2**100}}, seconds_trained=0.1,
    )  # fmt: skip
    return checkpoints.save(num_updates, lambda path: (path / "weights").write_bytes(b"w"), state)


def test_what_was_saved_is_read_back_exactly(tmp_path):
    path = save(Checkpoints(tmp_path, keep=3), 12, value=0.5)
    state = read_state(path)
    assert torch.equal(state.tensors["a/b"], torch.full((2,), 0.5))
    assert state.mixture == {"rng": {"state": 2**100}}
    assert state.algorithm == {"num_updates": 12}
    assert state.seconds_trained == 0.1
    assert (policy_of(path) / "weights").read_bytes() == b"w"


def test_nothing_saved_is_no_checkpoint(tmp_path):
    assert Checkpoints(tmp_path / "none", keep=3).newest() is None


def test_only_the_newest_are_kept(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=2)
    for num_updates in (1, 2, 10):
        save(checkpoints, num_updates)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["00000002", "00000010"]
    assert checkpoints.newest() == tmp_path / "00000010"


def test_an_intact_checkpoint_of_the_same_update_stays(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=2)
    save(checkpoints, 5, value=1.0)
    assert read_state(save(checkpoints, 5, value=2.0)).tensors["a/b"][0] == 1.0
    assert [path.name for path in tmp_path.iterdir()] == ["00000005"]


def test_a_damaged_checkpoint_of_the_same_update_is_replaced(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=2)
    (save(checkpoints, 5) / "trainer.safetensors").write_bytes(b"x")
    assert read_state(save(checkpoints, 5, value=2.0)).tensors["a/b"][0] == 2.0
    assert [path.name for path in tmp_path.iterdir()] == ["00000005"]


def test_a_crash_while_a_damaged_checkpoint_is_replaced_leaves_the_one_before(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=2)
    before, damaged = save(checkpoints, 4), save(checkpoints, 5)
    (damaged / "trainer.safetensors").write_bytes(b"x")
    dies(lambda: save(Checkpoints(tmp_path, keep=2), 5), "checkpoint aside")
    assert checkpoints.newest() == before
    assert save(checkpoints, 5) == checkpoints.newest() == damaged


def test_an_unfinished_checkpoint_does_not_count_and_is_cleaned(tmp_path):
    (tmp_path / ".tmp-7-1" / "policy").mkdir(parents=True)
    checkpoints = Checkpoints(tmp_path, keep=2)
    assert checkpoints.newest() is None
    checkpoints.clean()
    assert not list(tmp_path.iterdir())


def test_a_damaged_checkpoint_is_passed_over(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=3)
    good, bad = save(checkpoints, 1), save(checkpoints, 2)
    (bad / "trainer.safetensors").write_bytes(b"x")
    assert checkpoints.newest() == good


def test_no_intact_checkpoint_at_all_is_an_error(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=3)
    (save(checkpoints, 1) / "trainer.json").unlink()
    with pytest.raises(CheckpointError, match="None of the 1"):
        checkpoints.newest()


@pytest.mark.parametrize("place", [place for place in failpoints.CHECKPOINT if place != "checkpoint aside"])
def test_a_checkpoint_is_there_whole_or_not_at_all(tmp_path, place):
    checkpoints = Checkpoints(tmp_path, keep=1)
    save(checkpoints, 1)
    dies(lambda: save(Checkpoints(tmp_path, keep=1), 2, value=0.5), place)
    newest = checkpoints.newest()
    assert newest is not None
    assert newest.name == ("00000002" if place == "checkpoint renamed" else "00000001")
    assert read_state(newest).tensors["a/b"][0] == (0.5 if place == "checkpoint renamed" else 1.0)
    checkpoints.clean()
    assert save(checkpoints, 2).name == "00000002"
    assert [path.name for path in tmp_path.iterdir()] == ["00000002"]


def test_a_written_checkpoint_counts_once_it_is_sealed(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=2)
    state = TrainerState(tensors={"a": torch.ones(3)}, algorithm={}, mixture={}, seconds_trained=0.0)
    written = checkpoints.write(7, lambda path: (path / "weights").write_bytes(bytes(9 * 2**20)), state)
    assert checkpoints.newest() is None
    state.tensors["a"].zero_()
    sealed = checkpoints.seal(written)
    assert sealed == checkpoints.newest() == tmp_path / "00000007"
    assert torch.equal(read_state(sealed).tensors["a"], torch.ones(3))
    assert (policy_of(sealed) / "weights").read_bytes() == bytes(9 * 2**20)
