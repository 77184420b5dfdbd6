"""Scripted play in the simulator: episodes with what the pointing lesson needs, and the tokenizer."""

import io
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

import numpy as np
import sentencepiece

from robot_infra.envs import build, build_operator
from robot_infra.envs.gymnasium_env import GymnasiumRobot
from robot_infra.envs.sim_pnp import kinematics
from robot_infra.envs.sim_pnp.env import SimPnp
from robot_infra.envs.sim_pnp.render import HIGH_CAMERA, wrist_camera
from robot_infra.envs.sim_pnp.scenes import PLAY, TASK, Scene
from robot_infra.envs.sim_pnp.world import NUM_ARMS, World
from serl_launcher import config as configuration
from serl_launcher.config.actor import InterventionConfig
from serl_launcher.config.environment import EnvironmentConfig
from serl_launcher.images import decode_image, encode_image
from serl_launcher.policies import NormStats
from serl_launcher.policies.normalization import with_least_std
from serl_launcher.specs import RobotSpec


@dataclass(slots=True)
class Play:
    """One successful episode of play."""

    images: list[list[bytes]]
    state: np.ndarray
    """float32 [T, S]."""
    actions: np.ndarray
    """float32 [T, A]."""
    points: np.ndarray
    """float32 [T, C, 4, 3]: of both objects and both places in each picture, x and y in [-1, 1], then 1 if visible."""
    prompts: tuple[str, str]
    """What is asked for, and the sentence that names the other object and the other place."""


@dataclass(slots=True)
class PlayBatch:
    """What one update learns from."""

    images: np.ndarray
    state: np.ndarray
    prompts: list[str]
    actions: np.ndarray
    is_pad: np.ndarray
    points: np.ndarray
    """float32 [B, C, 2, 3]: of the object and the place that the prompt names."""


def train_tokenizer() -> bytes:
    """Returns a small SentencePiece model; its ids of BOS, EOS and padding are PaliGemma's.

    It has seen the words of task and play alike, as a real tokenizer has; the weights have seen only play.
    """
    sentences = [
        sentence.format(object=thing.name, place=place.name)
        for catalogue in (TASK, PLAY)
        for sentence in catalogue.sentences
        for thing in catalogue.objects
        for place in catalogue.places
    ]
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sorted(sentences) * 3), model_writer=model, vocab_size=180, model_type="bpe", pad_id=0,
        eos_id=1, bos_id=2, unk_id=3, user_defined_symbols=["\n"], character_coverage=1.0, hard_vocab_limit=False,
        required_chars="abcdefghijklmnopqrstuvwxyz0123456789", minloglevel=2,
    )  # fmt: skip
    return model.getvalue()


def play_environment() -> EnvironmentConfig:
    """Returns the demo's environment with other things on the table."""
    environment = configuration.load(["task=sim_pnp"]).environment
    environment.options = {"catalogue": "play"}
    return environment


def record_play(num_episodes: int, first_seed: int, num_processes: int) -> tuple[list[Play], RobotSpec]:
    """Returns the successful episodes of a person that drives all the time, and the robot."""
    share = -(-num_episodes // num_processes)
    starts = range(first_seed, first_seed + num_episodes, share)
    with ProcessPoolExecutor(num_processes) as pool:
        parts = list(pool.map(_record, starts, [share] * len(starts)))
    return [play for part in parts for play in part], build(play_environment()).spec


def _record(first_seed: int, count: int) -> list[Play]:
    env = build(play_environment())
    assert isinstance(env, GymnasiumRobot)
    assert isinstance(env.env, SimPnp)
    simulator = env.env
    person = build_operator(env, InterventionConfig(), always_drive=True)
    episodes = []
    for seed in range(first_seed, first_seed + count):
        observation = env.reset(seed=seed)
        person.reset()
        images, states, actions, points = [], [], [], []
        is_over, success = False, False
        while not is_over:
            action = person.command(observation, None)
            assert isinstance(action, np.ndarray), "This person drives every tick."
            images.append([encode_image(observation.images[camera.name], camera) for camera in env.spec.cameras])
            states.append(observation.state)
            actions.append(action)
            points.append(points_in_pictures(simulator.world))
            transition = env.step(action)
            observation, success = transition.observation, transition.success
            is_over = transition.terminated or transition.truncated
        if success:
            prompts = (observation.prompt, other_prompt(simulator.world.scene))
            episodes.append(Play(images, np.stack(states), np.stack(actions), np.stack(points), prompts))
    return episodes


def other_prompt(scene: Scene) -> str:
    """Returns the prompt with the other object and the other place."""
    prompt = scene.prompt
    for first, second in (scene.objects, scene.places):
        prompt = prompt.replace(first.name, second.name)
    return prompt


def points_in_pictures(world: World) -> np.ndarray:
    """Returns where each camera sees both objects and both places, float32 [C, 4, 3]: x, y in [-1, 1], visible."""
    cameras = [HIGH_CAMERA, *(wrist_camera(world.joints[arm], kinematics.BASES[arm]) for arm in range(NUM_ARMS))]
    on_table = np.concatenate([world.scene.place_positions, np.zeros((2, 1))], axis=1)
    things = np.concatenate([world.objects, on_table])
    result = np.zeros((len(cameras), len(things), 3), np.float32)
    for number, camera in enumerate(cameras):
        projected = camera.project(things, (2, 2))
        position = projected[:, :2] - 1.0
        result[number, :, :2] = np.clip(position, -1.5, 1.5)
        result[number, :, 2] = (projected[:, 2] > 0.02) & (np.abs(position) < 1.0).all(axis=1)
    return result


class PlaySampler:
    """Draws chunks of play uniformly over ticks."""

    def __init__(self, episodes: list[Play], spec: RobotSpec, horizon: int, seed: int) -> None:
        self._episodes = episodes
        self._spec = spec
        self._horizon = horizon
        self._rng = np.random.default_rng(seed)
        self._ticks = [(number, tick) for number, play in enumerate(episodes) for tick in range(len(play.state))]

    def statistics(self, delta_mask: np.ndarray | None) -> dict[str, NormStats]:
        """Returns mean and deviation of states and of whole chunks."""
        chunks = []
        for play in self._episodes:
            ticks = np.arange(len(play.state))[:, None] + np.arange(self._horizon)
            chunk = play.actions[np.minimum(ticks, len(play.state) - 1)]
            chunks.append(chunk if delta_mask is None else chunk - np.where(delta_mask, play.state, 0.0)[:, None])
        flat = np.concatenate(chunks).reshape(-1, self._spec.action_dim)
        states = np.concatenate([play.state for play in self._episodes])
        return {
            key: with_least_std(NormStats(mean=values.mean(0).tolist(), std=values.std(0).tolist()))
            for key, values in (("state", states), ("actions", flat))
        }

    def draw(self, batch_size: int) -> PlayBatch:
        """Returns one batch; the policy is asked for what the person did."""
        return self._batch(self._rng.integers(len(self._ticks), size=batch_size), np.zeros(batch_size, int))

    def draw_pairs(self, batch_size: int) -> PlayBatch:
        """Returns observations in pairs: as they were, and asked for the other object and place (without actions)."""
        ticks = self._rng.integers(len(self._ticks), size=batch_size // 2)
        return self._batch(np.repeat(ticks, 2), np.tile([0, 1], batch_size // 2))

    def _batch(self, chosen: np.ndarray, asked: np.ndarray) -> PlayBatch:
        plays = [self._episodes[self._ticks[i][0]] for i in chosen]
        ticks = np.array([self._ticks[i][1] for i in chosen])
        ahead = ticks[:, None] + np.arange(self._horizon)
        lengths = np.array([len(play.state) for play in plays])[:, None]
        rows = np.minimum(ahead, lengths - 1)
        points = np.stack([play.points[tick] for play, tick in zip(plays, ticks, strict=True)])
        samples = np.arange(len(chosen))
        return PlayBatch(
            images=np.stack([self._decoded(play.images[tick]) for play, tick in zip(plays, ticks, strict=True)]),
            state=np.stack([play.state[tick] for play, tick in zip(plays, ticks, strict=True)]),
            prompts=[play.prompts[which] for play, which in zip(plays, asked, strict=True)],
            actions=np.stack([play.actions[row] for play, row in zip(plays, rows, strict=True)]),
            is_pad=ahead >= lengths,
            points=np.stack([points[samples, :, asked], points[samples, :, 2 + asked]], axis=2),
        )

    def _decoded(self, images: list[bytes]) -> np.ndarray:
        return np.stack([decode_image(i, camera.shape) for i, camera in zip(images, self._spec.cameras, strict=True)])
