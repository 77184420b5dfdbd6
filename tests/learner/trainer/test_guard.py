import threading
from dataclasses import replace

import pytest
import torch

from learner.trainer.build import build_trainer
from learner.trainer.checkpoints import Checkpoints
from learner.trainer.guard import WINDOW, Diverged, Guard, NotFinite
from serl_launcher.config.training import TrainingConfig
from serl_launcher.types import Outcome


def failing(guard, num_updates):
    return guard.is_rollback_due(NotFinite("not finite"), num_updates)


def test_going_back_is_due_after_failures_in_a_row_only():
    guard = Guard(TrainingConfig(max_skipped_updates=3))
    assert not failing(guard, 5)
    assert not failing(guard, 5)
    guard.accept()
    assert [failing(guard, 6) for _ in range(3)] == [False, False, True]
    assert guard.num_skipped == 5


def test_no_checkpoint_may_be_written_between_a_failure_and_the_next_good_update():
    guard = Guard(TrainingConfig())
    failing(guard, 0)
    assert not guard.is_healthy
    guard.accept()
    assert guard.is_healthy


def test_going_back_too_often_gives_up():
    guard = Guard(TrainingConfig(max_skipped_updates=1, max_rollbacks=2))
    assert failing(guard, 10)
    assert failing(guard, 20)
    with pytest.raises(Diverged, match="max_rollbacks"):
        failing(guard, 30)


def test_an_old_return_does_not_count():
    guard = Guard(TrainingConfig(max_skipped_updates=1, max_rollbacks=1))
    assert failing(guard, 10)
    assert failing(guard, 11 + WINDOW)


class Poison:
    """Stands before an algorithm and spoils chosen batches: what a damaged sample or a bad kernel would do."""

    def __init__(self, algorithm, calls):
        self._algorithm, self._calls, self._count = algorithm, calls, 0

    def __getattr__(self, name):
        return getattr(self._algorithm, name)

    def update(self, batch):
        self._count += 1
        if self._count in self._calls:
            batch = replace(batch, actions=batch.actions * float("nan"))
        return self._algorithm.update(batch)


@pytest.fixture(name="sft")
def fixture_sft(run):
    run.record(*[Outcome.SUCCESS] * 3, root=run.demonstrations)
    run.config.training.max_skipped_updates = 2
    return run


def poisoned(run, calls):
    trainer = build_trainer(run.config)
    trainer._algorithm = Poison(trainer._algorithm, calls)
    return trainer


def test_a_batch_that_is_not_finite_is_skipped_and_reported(sft):
    trainer = poisoned(sft, {3, 5})
    assert trainer.run(threading.Event())
    assert trainer.status()["updates"] == 6
    assert trainer.status()["skipped_updates"] == 2


class FailsAfterwards(Poison):
    """Fails when it has counted the update, as an actor-critic whose policy fails after its critics have learned."""

    def update(self, batch):
        self._count += 1
        metrics = self._algorithm.update(batch)
        if self._count in self._calls:
            raise NotFinite("not finite")
        return metrics


def test_a_skipped_update_skips_no_checkpoint(sft):
    trainer = build_trainer(sft.config)
    trainer._algorithm = FailsAfterwards(trainer._algorithm, {3})
    assert trainer.run(threading.Event())
    assert sorted(path.name for path in sft.directory.checkpoints.glob("0*")) == ["00000004", "00000006"]


def test_after_several_in_a_row_the_run_continues_from_its_last_checkpoint(sft):
    seen = []
    trainer = poisoned(sft, {5, 6})
    go_back = trainer._go_back

    def watched():
        weights = [p.detach().clone() for p in trainer._algorithm.policy.parameters()]
        go_back()
        seen.append((trainer._algorithm.num_updates, weights, [p.detach().clone() for p in
                     trainer._algorithm.policy.parameters()]))  # fmt: skip

    trainer._go_back = watched
    assert trainer.run(threading.Event())
    ((num_updates, before, after),) = seen
    assert num_updates == 3
    assert any(not torch.equal(one, other) for one, other in zip(before, after, strict=True))
    assert trainer.status()["updates"] == 6
    assert Checkpoints(sft.directory.checkpoints, keep=3).newest().name == "00000006"


def test_without_a_checkpoint_there_is_nothing_to_go_back_to(sft):
    with pytest.raises(Diverged, match="none yet"):
        poisoned(sft, {1, 2}).run(threading.Event())
