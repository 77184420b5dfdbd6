"""Play and what the pointing lesson is told about it."""

import numpy as np

from robot_infra.envs.sim_pnp.env import SimPnp
from robot_infra.envs.sim_pnp.scenes import PLAY, TASK
from serl_launcher.policies.tokenizer import PromptTokenizer
from tools.make_sim_base.play import PlaySampler, points_in_pictures, record_play, train_tokenizer


def test_points_lie_on_what_they_name():
    env = SimPnp(catalogue=PLAY)
    checked = 0
    for seed in range(30):
        observation, _ = env.reset(seed=seed)
        scene = env.world.scene
        points = points_in_pictures(env.world)
        for camera, name in enumerate(("cam_high", "cam_left_wrist", "cam_right_wrist")):
            x, y, visible = points[camera, 2]
            if not visible or max(abs(x), abs(y)) > 0.9:
                continue
            column, row = int(32 * (x + 1)), int(32 * (y + 1))
            wanted = np.array(scene.places[0].colour) * scene.brightness
            checked += np.abs(observation[name][row, column] - wanted).max() < 40
    assert checked > 40, "places are seldom hidden by an arm or an object"


def test_a_sampled_chunk_repeats_its_last_action_beyond_the_episode():
    episodes, spec = record_play(2, first_seed=7, num_processes=1)
    sampler = PlaySampler(episodes, spec, horizon=16, seed=0)
    batch = sampler.draw(64)
    assert batch.images.shape == (64, 3, 64, 64, 3)
    assert batch.points.shape == (64, 3, 2, 3)
    for actions, is_pad in zip(batch.actions, batch.is_pad, strict=True):
        last = actions[~is_pad][-1]
        assert (actions[is_pad] == last).all()


def test_a_pair_asks_for_the_other_things_in_the_same_picture():
    episodes, spec = record_play(3, first_seed=7, num_processes=1)
    batch = PlaySampler(episodes, spec, horizon=16, seed=0).draw_pairs(32)
    np.testing.assert_array_equal(batch.images[::2], batch.images[1::2])
    assert all(asked != other for asked, other in zip(batch.prompts[::2], batch.prompts[1::2], strict=True))
    assert (np.abs(batch.points[::2, 0, :, :2] - batch.points[1::2, 0, :, :2]).max(axis=(1, 2)) > 0.05).all()


def test_every_sentence_of_task_and_play_fits_the_demo_policy():
    tokenizer = PromptTokenizer(train_tokenizer(), 16)
    for catalogue in (TASK, PLAY):
        for sentence in catalogue.sentences:
            prompts = [
                sentence.format(object=o.name, place=p.name) for o in catalogue.objects for p in catalogue.places
            ]
            ids, valid = tokenizer(prompts)
            assert valid.sum(1).max() <= 15
            assert len({tuple(row) for row in ids}) == len(prompts)
