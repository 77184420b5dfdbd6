"""Makes the base checkpoint of the demo from scripted play, never from the evaluated task.

    python -m tools.make_sim_base --output robot_infra/assets/sim_pnp_base

A scripted person plays with the objects, places and sentences of `scenes.PLAY`; the task shares none of them. As
PaliGemma does, the vision-language part first learns to point: where, in each picture, are the object and the place
that the sentence names? Then the whole policy learns to act. Users of a real robot start from the published weights of
pi0 instead.
"""

import argparse
import logging
from pathlib import Path

import torch

from serl_launcher import config as configuration
from serl_launcher.policies import Pi0Policy, save_policy
from serl_launcher.policies.tokenizer import PromptTokenizer
from tools.make_sim_base.play import PlaySampler, record_play, train_tokenizer
from tools.make_sim_base.training import Lessons, learn

logger = logging.getLogger(__name__)


def main() -> None:
    """Records play, teaches both lessons, writes the checkpoint in bfloat16."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="directory of the new checkpoint")
    parser.add_argument("--episodes", type=int, default=4000)
    parser.add_argument("--pointing-updates", type=int, default=900)
    parser.add_argument("--updates", type=int, default=2500)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.manual_seed(arguments.seed)
    run = configuration.load(["task=sim_pnp", "policy=pi0_tiny"])
    episodes, spec = record_play(arguments.episodes, arguments.seed * 10**6, arguments.threads)
    logger.info("Recorded %d episodes of play, %d ticks.", len(episodes), sum(len(play.state) for play in episodes))
    torch.set_num_threads(arguments.threads)
    policy = Pi0Policy(run.policy, spec, PromptTokenizer(train_tokenizer(), run.policy.max_token_len))
    policy.network.initialize_()
    sampler = PlaySampler(episodes, spec, run.policy.horizon, arguments.seed)
    policy.set_norm_stats(sampler.statistics(policy.delta_mask))
    lessons = Lessons(policy, arguments.seed)
    size, lr = arguments.batch_size, arguments.lr
    num_pointing, num_acting = arguments.pointing_updates, arguments.updates
    learn(lessons, lessons.pointing_loss, lambda: sampler.draw_pairs(size), num_updates=num_pointing, peak_lr=lr)
    learn(lessons, lessons.acting_loss, lambda: sampler.draw(size), num_updates=num_acting, peak_lr=lr)
    save_policy(policy, arguments.output, dtype=torch.bfloat16)
    logger.info("Wrote %s.", arguments.output)


if __name__ == "__main__":
    main()
