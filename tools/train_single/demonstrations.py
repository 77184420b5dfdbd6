"""Demonstrations for learning in one process, from a dataset that an actor or LeRobot recorded."""

from pathlib import Path

from learner.replay.reader import ReplayDataset
from learner.replay.transitions import TransitionMemory
from serl_launcher.errors import DatasetError
from serl_launcher.specs import RobotSpec
from serl_launcher.types import Observation


def read_demonstrations(root: Path, spec: RobotSpec, *, discount: float) -> TransitionMemory:
    """Returns every step of a dataset, without its images.

    Raises:
        DatasetError: It is empty, or its states or actions are not as wide as the task's.
    """
    dataset = ReplayDataset(root)
    steps, episodes = dataset.steps, dataset.episodes
    found = (steps.state.shape[1], steps.action.shape[1])
    if not dataset.num_steps or found != (spec.state_dim, spec.action_dim):
        raise DatasetError(
            f"Expected demonstrations with states and actions of widths {spec.state_dim} and {spec.action_dim} in "
            f"{root}, got {dataset.num_steps} steps of {found}."
        )
    memory = TransitionMemory(spec, capacity=dataset.num_steps, discount=discount)
    last_steps = episodes.first_step + episodes.length - 1
    for step in range(dataset.num_steps):
        episode = int(steps.episode[step])
        is_last = step == last_steps[episode]
        following = dataset.final_state(episode) if is_last else steps.state[step + 1]
        memory.add(
            Observation(images={}, state=steps.state[step], prompt=""), steps.action[step], float(steps.reward[step]),
            Observation(images={}, state=following, prompt=""), terminated=bool(steps.is_terminal[step]),
        )  # fmt: skip
    return memory
