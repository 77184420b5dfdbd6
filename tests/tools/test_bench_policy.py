"""The floor against numbers counted by hand, and the benchmarks themselves at their smallest."""

import json

import pytest
import torch

from serl_launcher.config.policy import PolicyConfig
from serl_launcher.networks.build import build_network
from serl_launcher.networks.pi0 import ModelInputs
from tools.bench_policy.floor import Floor, lerobot_flop, sampling_floor


def published(name, prompt_tokens):
    with torch.device("meta"):
        network = build_network(PolicyConfig(name=name, max_token_len=200)).to(torch.bfloat16)
    inputs = ModelInputs(
        images=torch.empty(1, 3, 3, 224, 224, device="meta"),
        image_valid=torch.ones(1, 3, dtype=torch.bool),
        tokens=torch.zeros(1, 200, dtype=torch.long),
        token_valid=torch.arange(200)[None] < prompt_tokens,
        state=torch.zeros(1, 32),
    )
    return network, inputs


def test_the_floor_of_the_published_model_is_the_one_counted_by_hand():
    network, inputs = published("pi0", 12)
    floor = sampling_floor(network, inputs, num_draws=1, num_steps=10)
    # Vision, projector, 17 layers of 110.1 M, keys and values of the last; ten times the expert. Two bytes each.
    layer = 110_104_576
    once = 412_442_352 + 2_361_344 + 17 * layer + 2 * 2048 * 256 + 2048
    assert floor.weight_bytes == pytest.approx(2 * (once + 10 * 311_464_960), rel=1e-4)
    # 780 prefix tokens x 1.98 B weights and 768 patches x 0.41 B, 51 tokens x 0.31 B x 10, and attention.
    dense = 2 * (780 * 17 * layer + 768 * 0.41e9 + 500 * 0.311e9)
    assert floor.flop == pytest.approx(dense, rel=0.08)


def test_the_floor_of_pi05_agrees_with_the_published_estimate():
    network, inputs = published("pi05", 200)
    floor = sampling_floor(network, inputs, num_draws=1, num_steps=10)
    assert floor.flop == pytest.approx(4.6e12, rel=0.1)
    assert floor.milliseconds(tflops=989, terabytes_per_s=4.8) < 9.0


def test_more_draws_read_no_more_weights():
    network, inputs = published("pi0", 12)
    one, eight = (sampling_floor(network, inputs, num_draws=n, num_steps=10) for n in (1, 8))
    assert one.weight_bytes == eight.weight_bytes
    assert one.flop < eight.flop < 2 * one.flop


def test_the_floor_is_the_longer_of_arithmetic_and_reading():
    assert Floor(2e12, 1e9).milliseconds(tflops=1000, terabytes_per_s=1) == pytest.approx(2.0)
    assert Floor(1e12, 4e9).milliseconds(tflops=1000, terabytes_per_s=1) == pytest.approx(4.0)


def test_lerobot_computes_padding_and_a_prefix_for_every_chunk():
    config = PolicyConfig()
    one, eight = (lerobot_flop(config, cameras=3, num_draws=n, num_steps=10) for n in (1, 8))
    assert eight == 8 * one
    # 816 prefix tokens through 18 layers of 110.1 M, 768 patches through 0.41 B, 51 tokens through 0.31 B ten times.
    dense = 2 * (816 * 18 * 110_104_576 + 768 * 0.41e9 + 510 * 0.311e9)
    assert one == pytest.approx(dense, rel=0.08)
    network, inputs = published("pi0", 12)
    ours = sampling_floor(network, inputs, num_draws=8, num_steps=10).flop
    assert eight / ours == pytest.approx(5.3, rel=0.02)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.filterwarnings("ignore")
def test_the_benchmark_gives_lerobots_actions_and_is_faster(tmp_path):
    from tools.bench_policy.__main__ import main

    assert main(["--sizes", "tiny", "--rounds", "3", "--batch", "2", "--output", str(tmp_path / "a.json")]) == 0
    figures = {each["name"]: each["value"] for each in json.loads((tmp_path / "a.json").read_text())["results"]}
    assert figures["tiny/difference of actions"] < 1e-5
    assert figures["tiny/sample/speed-up"] > 1.0


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.filterwarnings("ignore")
def test_the_gpu_benchmark_runs_anywhere(tmp_path):
    from tools.bench_policy_gpu import main

    output = tmp_path / "b.json"
    assert main(["--policy", "pi0_tiny", "--device", "cpu", "--rounds", "2", "--train", "--batch", "2",
                 "--output", str(output)]) == 0  # fmt: skip
    figures = {each["name"]: each["value"] for each in json.loads(output.read_text())["results"]}
    assert {"1 chunks/frozen", "1 chunks/floor: time", "1 chunks/LeRobot", "train lora/throughput"} <= set(figures)
    assert figures["8 chunks/LeRobot, difference of actions"] < 1e-4
