import numpy as np

from robot_infra.envs.sim_pnp.env import SimPnp
from robot_infra.interfaces import Transition
from robot_infra.robots.dobot.emulator.cell import home_pose
from robot_infra.robots.dobot.emulator.person import HOME_TICKS, CellPerson, nothing_seen


def test_a_solved_scene_is_judged_once_and_the_next_one_is_played():
    keys: list[str] = []
    home = home_pose()
    person = CellPerson(
        SimPnp(image_size=(16, 16), max_episode_length=10**9), home, keys.append, demonstrates=True, seed=0
    )
    solved = Transition(
        observation=nothing_seen({}), reward=1.0, terminated=True, truncated=False, success=True, executed_action=home
    )
    away = home + 0.5
    person.tick(away, solved)
    for _ in range(HOME_TICKS):
        person.tick(home, solved)
    assert keys == ["s"]
    assert person.num_scenes == 2
    going_on = Transition(
        observation=nothing_seen({}), reward=0.0, terminated=False, truncated=False, success=False, executed_action=home
    )
    assert np.abs(person.tick(home, going_on) - home).max() > 0.0
