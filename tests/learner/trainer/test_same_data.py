import shutil

from learner.replay.reader import ReplayDataset
from learner.trainer.same_data import EpisodeChain, digest_of
from serl_launcher.datasets.writer import DatasetWriter
from serl_launcher.events import EpisodeLabelled
from serl_launcher.types import Outcome
from tests.learner.conftest import SPEC


def test_a_copy_is_the_same_and_another_label_or_episode_is_not(run, tmp_path):
    run.record(*[Outcome.SUCCESS] * 2, root=run.demonstrations)
    known = digest_of(ReplayDataset(run.demonstrations))
    copy = shutil.copytree(run.demonstrations, tmp_path / "copy")
    assert digest_of(ReplayDataset(copy)) == known
    DatasetWriter(copy, SPEC).relabel("a-1-0", EpisodeLabelled("a-1-0", Outcome.FAILURE, "human", 1.0))
    relabelled = digest_of(ReplayDataset(copy))
    run.record(Outcome.SUCCESS, first=2, root=run.demonstrations)
    assert len({known, relabelled, digest_of(ReplayDataset(run.demonstrations))}) == 3


def test_the_first_episodes_of_two_replays_have_one_number_where_they_are_the_same(run, tmp_path):
    run.record(*[Outcome.SUCCESS] * 4, root=tmp_path / "long")
    run.record(*[Outcome.FAILURE] * 3, root=tmp_path / "short")
    run.record(Outcome.SUCCESS, root=tmp_path / "other")
    run.record(*[Outcome.SUCCESS] * 2, first=2, root=tmp_path / "other")
    long, short, other = (EpisodeChain(ReplayDataset(tmp_path / name)) for name in ("long", "short", "other"))
    assert [short.digest(count) for count in range(4)] == [long.digest(count) for count in range(4)]
    assert [other.digest(count) == long.digest(count) for count in range(4)] == [True, True, False, False]
