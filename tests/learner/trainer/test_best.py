import json

from learner.trainer.best import score_of
from learner.trainer.checkpoints import Checkpoints, TrainerState, policy_of
from serl_launcher.policies import policy_hash


def save(checkpoints, num_updates, **counters):
    state = TrainerState(
        tensors={}, algorithm={"num_updates": num_updates}, mixture={}, seconds_trained=0.0, counters=counters
    )
    return checkpoints.save(num_updates, lambda path: (path / "config.json").write_text(str(num_updates)), state)


def evaluate(root, checkpoint, success_rate, *, name="eval-1", num_episodes=100, wrong_prompt=False):
    report = {
        "policy_hash": policy_hash(policy_of(checkpoint)), "wrong_prompt": wrong_prompt,
        "overall": {"success_rate": success_rate, "num_episodes": num_episodes}, "checkpoint": "x",
    }  # fmt: skip
    (root / name).mkdir()
    (root / name / "report.json").write_text(json.dumps(report))


def names(checkpoints_root):
    return sorted(path.name for path in checkpoints_root.iterdir() if path.is_dir())


def test_the_checkpoint_of_the_smallest_held_out_loss_stays(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=2, score=score_of("held_out", tmp_path))
    for num_updates, loss in ((1, 0.5), (2, 0.2), (3, 0.3), (4, 0.4), (5, 0.6)):
        save(checkpoints, num_updates, held_out_loss=loss)
    assert names(tmp_path) == ["00000002", "00000004", "00000005"]
    assert checkpoints.best() == tmp_path / "00000002"
    assert (tmp_path / "BEST").read_text().strip() == "00000002"


def test_the_checkpoint_of_the_best_evaluation_stays(tmp_path):
    root = tmp_path / "checkpoints"
    checkpoints = Checkpoints(root, keep=2, score=score_of("evaluation", tmp_path))
    first, second = save(checkpoints, 1), save(checkpoints, 2)
    evaluate(tmp_path, first, 0.9, name="eval-first")
    evaluate(tmp_path, second, 0.5, name="eval-second")
    evaluate(tmp_path, second, 1.0, name="eval-control", wrong_prompt=True)
    evaluate(tmp_path, second, 1.0, name="eval-short", num_episodes=10)
    for num_updates in (3, 4):
        save(checkpoints, num_updates)
    assert names(root) == ["00000001", "00000003", "00000004"]
    assert checkpoints.best() == first


def test_a_damaged_report_is_passed_over(tmp_path):
    root = tmp_path / "checkpoints"
    checkpoints = Checkpoints(root, keep=1, score=score_of("evaluation", tmp_path))
    (tmp_path / "eval-broken").mkdir()
    (tmp_path / "eval-broken" / "report.json").write_text("{")
    save(checkpoints, 1)
    assert checkpoints.best() is None


def test_without_a_measure_only_the_newest_stay(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=1, score=score_of("none", tmp_path))
    for num_updates in (1, 2):
        save(checkpoints, num_updates, held_out_loss=float(num_updates))
    assert names(tmp_path) == ["00000002"]
    assert checkpoints.best() is None
