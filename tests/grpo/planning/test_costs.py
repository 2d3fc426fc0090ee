"""Computed times and proposals: operations counted as the models do them, and placements that fit, fastest first."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from typer.testing import CliRunner

from blip3o_grpo.cli import app
from blip3o_grpo.configs import ConfigError, load_run_config
from blip3o_grpo.planning.cards import CARDS, SHARE_OF_FLOPS
from blip3o_grpo.planning.costs import (
    TYPICAL_PROMPT,
    computed_times,
    forward_operations,
    head_operations,
    operations_per_image,
    policy_of_shapes,
)
from blip3o_grpo.planning.plan import check_layout, make_plan
from blip3o_grpo.planning.times import StageTimes, gpu_seconds, predict
from blip3o_grpo.planning.tune import divisions, every_role, proposals, with_cluster
from blip3o_grpo.policies import BLIP3oNext
from blip3o_grpo.policies.blip3o_next.released import write_configs

CONFIGS = Path(__file__).parents[3] / "configs"
TERA = 1e12


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    """Configs of the released sizes, without weights."""
    folder = tmp_path_factory.mktemp("released")
    write_configs(folder, 1)
    return folder


@pytest.fixture(scope="module")
def ocr(released):
    """The recipe for 8 GPUs."""
    return load_run_config(CONFIGS / "blip3o_next_ocr.yaml", [f"policy.path={released}"])


@torch.no_grad()
def test_the_language_models_operations_are_those_it_does(policy_path):
    """PyTorch counts attention whole; a causal one does half of it."""
    policy = BLIP3oNext.from_pretrained(policy_path, parts=("ar",))
    policy.ar.set_attn_implementation("eager")  # others are kernels that the counter does not look into on a CPU
    ids = torch.zeros(1, 40, dtype=torch.long)
    with FlopCounterMode(display=False) as counter:
        policy.ar.model(input_ids=ids, use_cache=False)
    config = policy.config
    half = 2 * config.num_hidden_layers * config.num_attention_heads * config.head_dim * 40**2
    assert forward_operations(policy, 40) == pytest.approx(counter.get_total_flops() - half, rel=0.01)


def test_operations_of_the_released_sizes(ocr, released):
    """By hand: SANA 3.23 TFLOP a forward and branch, of which reading the caption is left out; DC-AE 8.4; Qwen3 2.2."""
    operations = operations_per_image(ocr, policy_of_shapes(released))
    assert 0.75 * 2 * 3.23 * TERA < operations["decode per step"] < 0.9 * 2 * 3.23 * TERA
    assert operations["decode once"] == pytest.approx((8.4 + 2.2 + 0.3) * TERA, rel=0.06)
    assert operations["train"] == pytest.approx(5 * (2.2 + 0.2) * TERA, rel=0.05)


def test_times_follow_the_card_and_say_that_they_are_computed(ocr, released):
    h100, h200 = (computed_times(ocr, released, name) for name in ("h100", "h200"))
    assert h100.decode_per_step == h200.decode_per_step
    assert h100.sample / h200.sample == pytest.approx(CARDS["h200"].bytes_per_s / CARDS["h100"].bytes_per_s)
    assert h200.train == pytest.approx(
        operations_per_image(ocr, policy_of_shapes(released))["train"] / (989e12 * SHARE_OF_FLOPS)
    )
    assert h200.source.startswith("computed for h200") and "no GPU run was made" in h200.source


def test_a_heads_update_costs_every_image_and_tokens_that_stay_cost_nothing(ocr, released):
    """Of a completion: its hidden states once, and of each image the velocity with its backward pass, which is two, and
    the starting head's."""
    policy = policy_of_shapes(released)
    own = {"noises_per_completion": 4, "noise": "independent"}

    def train(*learn):
        rollout = ocr.rollout.model_copy(update=own)
        return operations_per_image(ocr.model_copy(update={"learn": learn, "rollout": rollout}), policy)["train"]

    velocity = sum(head_operations(policy, guided=True))
    forward = forward_operations(policy, policy.image_tokens.num_tokens + TYPICAL_PROMPT)
    assert train("head") == pytest.approx(forward + 4 * 4 * velocity)
    assert train("tokens", "head") == pytest.approx(train("tokens") + train("head"))


TIMES = StageTimes({}, "gpu", "bfloat16", 0.01, 0.01, 0.04, 0.1, 0.02, "made up")


def test_the_fastest_placement_that_fits_comes_first(ocr):
    """Decoding is the longest stage by far, so most GPUs decode; what `check` refuses is not proposed."""

    def check(config):
        if config.cluster.decoders > 5:
            raise ConfigError("too many")

    found = proposals(ocr, TIMES, 8, check)
    assert [found[0]["cluster"][kind] for kind in ("trainers", "samplers", "decoders")] == [2, 1, 5]
    assert [proposal["step_seconds"] for proposal in found] == sorted(p["step_seconds"] for p in found)
    best = found[0]
    decode, train = 512 * (0.01 * 30 + 0.04) / 5, 512 * 0.02 / 2
    assert best["step_seconds"] == pytest.approx(decode + train)
    assert best["images_per_second"] == pytest.approx(512 / best["step_seconds"])
    assert best["gpu_hours"] == pytest.approx(900 * best["step_seconds"] * 8 / 3600)
    work = 512 * (0.01 + 0.34 + 0.02)
    assert best["busy_share"] == pytest.approx(work / (8 * best["step_seconds"]))


def test_rewards_keep_the_gpus_that_the_recipe_gives_them(ocr):
    """Three rewards of .3 GPU take one of eight; the others are divided."""
    cluster = ocr.cluster.model_copy(update={"gpus_per_reward": 0.3, "rewards": 1})
    rewards = (*ocr.rewards, ocr.rewards[0].model_copy(update={"name": "third"}))
    given = ocr.model_copy(update={"cluster": cluster, "rewards": rewards})
    assert {sum(d[kind] for kind in ("trainers", "samplers", "decoders")) for d in divisions(given, 8)} == {7}
    assert {sum(d[kind] for kind in ("trainers", "samplers", "decoders")) for d in divisions(ocr, 8)} == {8}


def test_a_detector_on_a_gpu_takes_no_core_seconds(ocr, released):
    cluster = ocr.cluster.model_copy(update={"gpus_per_reward": 0.3})
    on_gpu = computed_times(ocr.model_copy(update={"cluster": cluster}), released, "h200")
    assert on_gpu.score == pytest.approx(313e9 / (989e12 * SHARE_OF_FLOPS))
    assert "text read" not in on_gpu.source and "text read" in computed_times(ocr, released, "h200").source


def test_reward_replicas_keep_up(ocr):
    slow = StageTimes({}, "gpu", "bfloat16", 0.01, 0.01, 0.04, 1.0, 0.02, "made up")
    best = proposals(ocr, slow, 8, lambda config: None)[0]
    assert best["cluster"]["rewards"] > ocr.cluster.rewards
    tuned = ocr.model_copy(update={"cluster": ocr.cluster.model_copy(update=best["cluster"])})
    seconds = predict(tuned, slow)
    assert seconds["score"] <= max(seconds["sample"], seconds["decode"])


def test_no_more_replicas_than_groups_and_none_beside_those_that_have_gpus(ocr):
    """A group is scored by one replica; and the GPUs of rewards are counted before placements are tried."""
    slow = StageTimes({}, "gpu", "bfloat16", 0.01, 0.01, 0.04, 1e4, 0.02, "made up")
    assert proposals(ocr, slow, 64, lambda config: None)[0]["cluster"]["rewards"] == 32
    on_gpus = with_cluster(ocr, {"gpus_per_reward": 0.1, "rewards": 1})
    best = proposals(on_gpus, slow, 8, lambda config: check_layout(config))[0]["cluster"]
    assert best["rewards"] == 1 and sum(best[kind] for kind in ("trainers", "samplers", "decoders")) == 7
    with pytest.raises(ConfigError, match=r"--tune 3: rewards have 1 of them \(cluster.gpus_per_reward.*4 or more"):
        proposals(on_gpus, slow, 3, lambda config: None)
    with pytest.raises(ConfigError, match="--tune 5000: give a number of GPUs, 1 to 4096"):
        proposals(ocr, slow, 5000, lambda config: None)


@pytest.mark.parametrize(
    "changes",
    [
        ["rollout.prompts_per_step=6", "rollout.group_size=4", "trainer.micro_batch_size=12"],
        ["trainer.text_kl.weight=1", "trainer.text_kl.texts_per_step=3", "cluster.trainers=1"],
        ["rollout.replay.groups_per_step=1", "cluster.trainers=1"],
    ],
)
def test_what_a_run_would_refuse_is_not_proposed(released, changes):
    """Micro-batches, texts and replayed groups have to divide over the ranks, which `cluster` alone cannot tell."""
    recipe = load_run_config(CONFIGS / "blip3o_next_ocr.yaml", [f"policy.path={released}", *changes])
    for proposal in proposals(recipe, TIMES, 8, lambda config: None):
        keys = [f"cluster.{key}={value:g}" for key, value in proposal["cluster"].items()]
        load_run_config(CONFIGS / "blip3o_next_ocr.yaml", [f"policy.path={released}", *changes, *keys])


def test_workers_of_one_kind_on_one_gpu_are_no_faster_than_one(ocr):
    one, two = (
        with_cluster(ocr, {"samplers": count, "decoders": 10, "gpus_per_sampler": share, "gpus_per_decoder": 0.5})
        for count, share in ((1, 1), (2, 0.5))
    )
    alone, shared = predict(one, TIMES), predict(two, TIMES)
    assert shared["sample"] == alone["sample"] == pytest.approx(512 * 0.01)
    assert shared["decode"] == alone["decode"] == pytest.approx(512 * 0.34 / 5)
    assert gpu_seconds(two, TIMES) == pytest.approx(gpu_seconds(one, TIMES)) == pytest.approx(512 * 0.37)


def test_a_card_s_memory_is_what_its_gpus_have(released, ocr):
    """80 GB cannot hold every role, which 141 can; a recipe that names the memory is believed."""
    with_a_rank_each = [p["cluster"]["gpus_per_trainer"] < 1 for p in make_plan(ocr, card="h100", tune=8)["proposals"]]
    assert not any(with_a_rank_each)
    assert make_plan(ocr, card="h200", tune=8)["proposals"][0]["cluster"]["gpus_per_trainer"] < 1
    small = with_cluster(ocr, {"gpu_memory_gb": 30})
    with pytest.raises(ConfigError, match="a GPU of cluster.gpu_memory_gb=30 cannot hold"):
        make_plan(small, card="h200")


def test_times_of_gpus_are_not_of_cpus_and_the_other_way_round(ocr):
    tiny = load_run_config(CONFIGS / "tiny_ocr.yaml")
    with pytest.raises(ConfigError, match=r"these times are not of GPUs \(the run of seed 0.*give --card NAME"):
        make_plan(tiny, tune=8)
    with pytest.raises(ConfigError, match=r"--card h200: this recipe keeps workers on CPUs \(cluster.gpus_per_tra"):
        make_plan(tiny, card="h200")
    assert make_plan(tiny, card="h200", tune=4)["proposals"][0]["cluster"]["rewards"] <= tiny.rollout.prompts_per_step


@pytest.mark.parametrize(("num_gpus", "count"), [(1, 1), (2, 1), (3, 1), (8, 6 + 5 + 3)])
def test_every_division_is_tried_that_gives_ranks_equal_shares(ocr, num_gpus, count):
    """32 prompts a step do not divide over 3, 5 or 6 trainer ranks."""
    assert len(list(divisions(ocr, num_gpus))) == count


def test_every_gpu_in_every_role_is_tried_where_ranks_get_equal_shares(ocr):
    """There GPU stages add up while cores read; the step is then all GPU work, evenly spread."""
    assert every_role(ocr, 1) == every_role(ocr, 3) == []  # 32 prompts do not divide over 3 ranks
    assert every_role(with_cluster(ocr, {"gpus_per_reward": 0.1}), 8) == []
    (roles,) = every_role(ocr, 8)
    best = proposals(ocr, TIMES, 8, lambda config: None)[0]
    assert best["cluster"].items() >= roles.items() and best["busy_share"] == pytest.approx(1)
    apart = proposals(ocr, TIMES, 8, lambda config: None, shared=False)
    assert all(proposal["cluster"]["gpus_per_trainer"] == 1 for proposal in apart)
    seconds = predict(with_cluster(ocr, best["cluster"]), TIMES)
    assert seconds["step at best"] == pytest.approx(seconds["sample"] + seconds["decode"] + seconds["train"])


def test_nothing_that_fits_is_one_line(ocr):
    def check(config):
        raise ConfigError("a GPU cannot hold it")

    with pytest.raises(ConfigError, match="--tune 4: no placement fits; the last one tried: a GPU cannot hold it"):
        proposals(ocr, TIMES, 4, check)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--card", "h20"], "did you mean h200?"),
        (["--card", "h200", "--tune", "0"], "give a number of GPUs"),
        (["--tune", "8"], "give --card NAME"),
        (["--card", "h200", "--measured", "runs/x"], "give one of them"),
    ],
)
def test_wrong_options_are_one_line(released, options, message):
    arguments = ["plan", str(CONFIGS / "blip3o_next_ocr.yaml"), f"policy.path={released}", *options]
    refused = CliRunner().invoke(app, arguments)
    assert refused.exit_code == 2 and message in refused.output.replace("\n", " ")


def test_the_command_plans_the_proposal_it_puts_first(ocr):
    plan = make_plan(ocr, card="h200", tune=8)
    first = plan["proposals"][0]["cluster"]
    workers = [kind for node in plan["nodes"] for gpu in node for kind in gpu]
    assert {kind: workers.count(kind) for kind in ("trainer", "sampler", "decoder")} == {
        "trainer": first["trainers"],
        "sampler": first["samplers"],
        "decoder": first["decoders"],
    }
    assert plan["seconds"]["step at best"] == pytest.approx(plan["proposals"][0]["step_seconds"])
    json.dumps(plan)
