"""Makes the base checkpoint of the demo from scripted play, never from the evaluated task.

    python -m tools.make_sim_base --output robot_infra/assets/sim_pnp_base

A scripted person plays with the objects, places and sentences of `scenes.PLAY`; the task shares none of them. The policy is
trained on that play alone, as users of the real system start from the published weights of pi0.
"""

import argparse
import io
import logging
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import sentencepiece
import torch

from robot_infra.envs import build, build_operator
from robot_infra.envs.sim_pnp.scenes import PLAY, TASK
from serl_launcher import config as configuration
from serl_launcher.config.actor import InterventionConfig
from serl_launcher.config.environment import EnvironmentConfig
from serl_launcher.images import decode_image, encode_image
from serl_launcher.policies import NormStats, Pi0Policy, save_policy
from serl_launcher.policies.tokenizer import PromptTokenizer
from serl_launcher.specs import RobotSpec

logger = logging.getLogger(__name__)

MIN_STD = 0.01
"""Joints that play never moves would otherwise be scaled by 1 / 0."""
EMA_DECAY = 0.995


@dataclass(slots=True)
class Play:
    """One successful episode of play."""

    images: list[list[bytes]]
    state: np.ndarray
    """float32 [T, S]."""
    actions: np.ndarray
    """float32 [T, A]."""
    prompt: str


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


def record_play(environment: EnvironmentConfig, num_episodes: int, first_seed: int) -> tuple[list[Play], RobotSpec]:
    """Returns the successful episodes of a person that drives all the time, and the robot."""
    env = build(environment)
    person = build_operator(env, InterventionConfig(), always_drive=True)
    episodes = []
    for seed in range(first_seed, first_seed + num_episodes):
        observation = env.reset(seed=seed)
        person.reset()
        images, states, actions = [], [], []
        while True:
            action = person.command(observation, None)
            assert action is not None, "This person drives every tick."
            images.append([encode_image(observation.images[camera.name], camera) for camera in env.spec.cameras])
            states.append(observation.state)
            actions.append(action)
            transition = env.step(action)
            observation = transition.observation
            if transition.terminated or transition.truncated:
                break
        if transition.success:
            episodes.append(Play(images, np.stack(states), np.stack(actions), observation.prompt))
    return episodes, env.spec


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
            key: NormStats(mean=values.mean(0).tolist(), std=np.maximum(values.std(0), MIN_STD).tolist())
            for key, values in (("state", states), ("actions", flat))
        }

    def draw(self, batch_size: int) -> tuple[np.ndarray, np.ndarray, list[str], np.ndarray, np.ndarray]:
        """Returns images [B, C, h, w, 3], state [B, S], prompts, actions [B, H, A] and is_pad [B, H]."""
        drawn = [self._ticks[i] for i in self._rng.integers(len(self._ticks), size=batch_size)]
        images = np.stack([np.stack(self._decoded(self._episodes[number].images[tick])) for number, tick in drawn])
        state = np.stack([self._episodes[number].state[tick] for number, tick in drawn])
        ahead = np.array([tick for _, tick in drawn])[:, None] + np.arange(self._horizon)
        lengths = np.array([len(self._episodes[number].state) for number, _ in drawn])[:, None]
        actions = np.stack(
            [self._episodes[number].actions[row] for (number, _), row in zip(drawn, np.minimum(ahead, lengths - 1), strict=True)]
        )
        return images, state, [self._episodes[number].prompt for number, _ in drawn], actions, ahead >= lengths

    def _decoded(self, images: list[bytes]) -> list[np.ndarray]:
        return [decode_image(image, camera.shape) for image, camera in zip(images, self._spec.cameras, strict=True)]


def train(policy: Pi0Policy, sampler: PlaySampler, *, num_updates: int, batch_size: int, peak_lr: float) -> None:
    """Flow-matching behaviour cloning with warm-up and cosine decay; leaves the averaged weights in the policy."""
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.AdamW(policy.parameters(), lr=peak_lr, betas=(0.9, 0.95), weight_decay=1e-4)
    averaged = [weights.detach().clone() for weights in policy.parameters()]
    started = time.monotonic()
    for update in range(num_updates):
        warmup = min(1.0, (update + 1) / 50)
        optimizer.param_groups[0]["lr"] = peak_lr * warmup * (0.03 + 0.97 * 0.5 * (1 + np.cos(np.pi * update / num_updates)))
        images, state, prompts, actions, is_pad = sampler.draw(batch_size)
        inputs = policy.prepare(images, state, prompts, augment=generator)
        pad = torch.from_numpy(is_pad)
        error = policy.flow_loss(inputs, torch.from_numpy(actions), pad, noise_samples=2, generator=generator)
        loss = error.sum() / ((~pad).sum() * error.shape[1] * error.shape[3])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(policy.parameters(), 1.0)
        optimizer.step()
        torch._foreach_lerp_(averaged, [p.detach() for p in policy.parameters()], 1 - min(EMA_DECAY, update / (update + 10)))
        if update % 100 == 99:
            rate = (update + 1) / (time.monotonic() - started)
            logger.info("Update %d of %d, loss %.4f, %.1f updates/s.", update + 1, num_updates, loss.item(), rate)
    with torch.no_grad():
        for weights, average in zip(policy.parameters(), averaged, strict=True):
            weights.copy_(average)


def main() -> None:
    """Records play, trains on it, writes the checkpoint in bfloat16."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="directory of the new checkpoint")
    parser.add_argument("--episodes", type=int, default=6000)
    parser.add_argument("--updates", type=int, default=6000)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(arguments.seed)
    run = configuration.load(["task=sim_pnp", "policy=pi0_tiny"])
    run.environment.options = {"catalogue": "play"}
    episodes, spec = record_play(run.environment, arguments.episodes, first_seed=arguments.seed * 10**6)
    logger.info("Recorded %d episodes of play, %d ticks.", len(episodes), sum(len(play.state) for play in episodes))
    policy = Pi0Policy(run.policy, spec, PromptTokenizer(train_tokenizer(), run.policy.max_token_len))
    policy.network.initialize_()
    sampler = PlaySampler(episodes, spec, run.policy.horizon, arguments.seed)
    policy.set_norm_stats(sampler.statistics(policy.delta_mask))
    train(policy, sampler, num_updates=arguments.updates, batch_size=arguments.batch_size, peak_lr=arguments.lr)
    save_policy(policy, arguments.output, dtype=torch.bfloat16)
    logger.info("Wrote %s.", arguments.output)


if __name__ == "__main__":
    main()
