"""`blip3o-grpo plan`: who goes where, bytes from shapes, times only from measurements, and what is refused."""

import json
import math
from pathlib import Path

import pytest
import torch
from peft import get_peft_model
from typer.testing import CliRunner

from blip3o_grpo.cli import app
from blip3o_grpo.configs import ConfigError, load_run_config
from blip3o_grpo.planning import check_placement, make_plan
from blip3o_grpo.planning.disk import checkpoint_bytes
from blip3o_grpo.planning.footprint import (
    _kept,
    footprints,
    head_activations,
    head_rows,
    images_at_once,
    kept_activations,
    num_adapter_values,
    num_references,
)
from blip3o_grpo.planning.plan import images_of, memory_of_gpu
from blip3o_grpo.planning.times import measure_run, measured_times, predict
from blip3o_grpo.policies import BLIP3oNext, load_config, resolve_policy_path
from blip3o_grpo.policies.blip3o_next.caption_once import captions_read_once
from blip3o_grpo.policies.blip3o_next.released import write_configs
from blip3o_grpo.rollout.placement.gpus import place
from blip3o_grpo.rollout.weights.path import weight_path
from blip3o_grpo.run.folder import RunFolder
from blip3o_grpo.training.lora import peft_config

CONFIGS = Path(__file__).parents[3] / "configs"
HEAD = {"learn": ["head"], "rollout": {"noises_per_completion": 3, "noise": "independent"}}
EIGHT = {"trainers": 4, "samplers": 2, "decoders": 2, "gpus_per_trainer": 1, "gpus_per_sampler": 1}


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    """Configs of the released sizes, without weights."""
    folder = tmp_path_factory.mktemp("released")
    write_configs(folder, 1)
    return folder


def recipe(name, released, *overrides):
    return load_run_config(CONFIGS / f"{name}.yaml", [f"policy.path={released}", *overrides])


def test_whole_gpus_fill_node_after_node(make_config):
    config = make_config(
        rollout={"prompts_per_step": 4}, cluster={**EIGHT, "gpus_per_decoder": 1, "nodes": 2, "gpus_per_node": 4}
    )
    first, second = place(config).nodes
    assert [list(gpu) for gpu in first] == [["sampler"], ["sampler"], ["decoder"], ["decoder"]]
    assert [list(gpu) for gpu in second] == [["trainer"]] * 4
    assert place(config).on_cpu == {"reward": 1}


def test_shares_are_packed_onto_few_gpus(make_config):
    shares = {"gpus_per_trainer": 0.4, "gpus_per_sampler": 0.3, "gpus_per_decoder": 0.3}
    assert place(make_config(cluster=shares)).nodes == (({"sampler": 1, "decoder": 1, "trainer": 1},),)
    config = make_config(
        rewards=[{"name": "a"}, {"name": "b"}], cluster={"gpus_per_trainer": 1, "gpus_per_reward": 0.5}
    )
    assert place(config).nodes == (({"reward": 2}, {"trainer": 1}),)


def test_workers_are_placed_on_the_gpus_that_there_are(make_config):
    thirds = make_config(cluster={"samplers": 3, "gpus_per_sampler": 0.3})
    assert place(thirds, [0, 1]).nodes == ((), ({"sampler": 3},))
    with pytest.raises(ConfigError, match=r"asks for 0.9 GPUs in all \(3 x 0.3 for samplers\); the Ray cluster has 0$"):
        place(thirds, [0, 0])
    large = make_config(cluster={"samplers": 3, "gpus_per_sampler": 0.6})  # 1.8 in all, and yet no room on two
    with pytest.raises(ConfigError, match=r"the Ray cluster has 2, but no GPU has 0.6 left for a sampler"):
        place(large, [1, 1])


def test_a_sampler_that_shares_the_trainers_gpu_sleeps_while_it_trains(make_config, policy_path):
    shares = {"gpus_per_trainer": 0.5, "gpus_per_sampler": 0.5, "gpu_memory_gb": 4}
    config = make_config(cluster=shares)
    sizes = footprints(config, policy_path)
    ((gpu,),) = place(config).nodes
    phases = memory_of_gpu(config, gpu, sizes, weight_path(config))
    trainer = sizes["trainer"]
    training_only = trainer.items["activations"] + trainer.items["logits of a chunk"]
    assert phases["training"] == {"sampler": 0, "trainer": trainer.total}
    assert phases["rollout"] == {"sampler": 0.9 * 0.5 * 4e9, "trainer": trainer.total - training_only + 2**30}
    fetching = make_config(cluster=shares | {"weight_sync": "object_store"})
    both = {"sampler": 0.9 * 0.5 * 4e9, "trainer": trainer.total}
    assert memory_of_gpu(fetching, gpu, sizes, weight_path(fetching)) == {"rollout": both, "training": both}
    check_placement(config, policy_path)


@pytest.mark.parametrize(
    ("cluster", "message"),
    [
        ({**EIGHT, "gpus_per_node": 4}, r"asks for 6 GPUs in all \(2 x 1 for samplers, 4 x 1 for trainers\).* have 4"),
        ({**EIGHT, "gpus_per_trainer": 0.5}, "4 trainer ranks could land on the same GPU"),
        ({"samplers": 3, "gpus_per_sampler": 0.6, "gpus_per_node": 2}, "no GPU has 0.6 left for a sampler"),
        ({"gpus_per_trainer": 1, "gpu_memory_gb": 0.01}, r"gpu_memory_gb=0\.01 cannot hold trainer"),
        ({"gpus_per_sampler": 0.1, "gpu_memory_gb": 0.05}, r"sampler need at least .* GB"),
        (
            {**EIGHT, "weight_sync": "ipc"},
            r"cluster\.weight_sync=ipc: no sampler shares a GPU.*use nccl or object_store",
        ),
    ],
)
def test_what_cannot_fit_is_refused(make_config, policy_path, cluster, message):
    config = make_config(rollout={"prompts_per_step": 4}, cluster=cluster)
    with pytest.raises(ConfigError, match=message):
        check_placement(config, policy_path)


@pytest.mark.parametrize("name", ["blip3o_next_1gpu", "blip3o_next_ocr", "blip3o_next_geneval", "blip3o_next_4nodes"])
def test_shipped_gpu_recipes_fit_the_released_model_on_80_gb(released, name):
    plan = make_plan(recipe(name, released, "cluster.gpu_memory_gb=80"))
    assert plan["gpus"] == {"blip3o_next_1gpu": 1, "blip3o_next_4nodes": 32}.get(name, 8)
    assert plan["weight_sync"] == ("ipc" if name == "blip3o_next_1gpu" else "nccl")
    assert max(sum(p.values()) for node in plan["gpu_memory_bytes"] for gpu in node for p in gpu.values()) <= 80e9
    assert plan["seconds"] is None  # nothing measured on GPUs, so nothing predicted


def test_weights_are_counted_exactly(make_config, policy_path):
    policy = BLIP3oNext.from_pretrained(policy_path)
    numel = {name: sum(p.numel() for p in module.parameters()) for name, module in policy.parts().items()}
    items = {kind: size.items for kind, size in footprints(make_config(), policy_path).items()}
    assert items["trainer"]["weights"] == items["trainer"]["gradients"] == items["trainer"]["reference"]
    assert items["trainer"]["Adam"] == 2 * items["trainer"]["weights"] == 8 * numel["ar"]
    captions = items["decoder"].pop("captions of a batch")
    assert items["decoder"] == {name: 4 * count for name, count in numel.items()}
    assert captions == 4 * num_kept_caption_values(policy, images_at_once(make_config()))


@torch.no_grad()
def num_kept_caption_values(policy: BLIP3oNext, images: int) -> int:
    """What a batch's blocks really keep for all steps."""
    condition = policy.connector(torch.zeros(images, policy.image_tokens.num_tokens + 1, policy.config.hidden_size))
    with captions_read_once(policy.sana, condition, None):
        kept = [block.attn2.processor for block in policy.sana.transformer_blocks]
    return sum(processor.key.numel() + processor.value.numel() for processor in kept)


def test_adapters_are_counted_exactly(make_config, policy_path):
    config = make_config(trainer={"lora": {"rank": 3, "targets": ["q_proj", "down_proj"]}})
    policy = BLIP3oNext.from_pretrained(policy_path)
    counted = num_adapter_values(policy, config)
    model = get_peft_model(policy.ar, peft_config(config.trainer.lora))
    learning = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert counted == learning
    items = footprints(config, policy_path)["trainer"].items
    assert items["gradients"] == 4 * learning and "reference" not in items


@pytest.mark.parametrize(("parallel", "parts"), [("ddp", 1), ("fsdp2", 2)])
def test_sharding_divides_what_it_shards(released, parallel, parts):
    config = recipe("blip3o_next_ocr", released, f"trainer.parallel.type={parallel}")
    items = footprints(config, released)["trainer"].items
    numel = footprints(config, released)["decoder"].items["ar"] // 2
    assert items["weights"] == 4 * numel // parts and items["Adam"] == 8 * numel // parts


@pytest.mark.parametrize("checkpointing", [False, True])
def test_activations_counted_from_shapes_are_those_really_kept(policy_path, checkpointing):
    config = load_config(policy_path)
    counted = [_kept(config, 4, 2, 30, torch.float32, checkpointing, device) for device in ("meta", "cpu")]
    assert counted[0] == counted[1] > 0


@pytest.mark.parametrize("lora", [None, {"rank": 2}])
def test_activations_of_the_head_are_those_really_kept(make_config, policy_path, lora):
    config = make_config(**HEAD, head={"lora": lora})
    real = BLIP3oNext.from_pretrained(policy_path, parts=("ar", "head"))
    counted = head_activations(config, BLIP3oNext.shapes(policy_path), 3)
    assert counted == pytest.approx(head_activations(config, real, 3, "cpu"), rel=0.05)  # attention's own few differ
    unguided = make_config(**HEAD, head={"lora": lora, "guided": False})
    assert head_activations(unguided, real, 3, "cpu") < 0.6 * counted


def test_an_ar_part_that_does_not_learn_has_weights_alone(make_config, policy_path):
    both, head = (make_config(**HEAD | {"learn": learn}) for learn in (["tokens", "head"], ["head"]))
    of_both, of_head = (footprints(config, policy_path)["trainer"].items for config in (both, head))
    gone = {"gradients", "Adam", "reference", "activations", "logits of a chunk"}
    assert of_both.keys() - of_head.keys() == gone
    assert {name: size for name, size in of_both.items() if name not in gone} == of_head
    moments = checkpoint_bytes(both, policy_path) - checkpoint_bytes(head, policy_path)
    assert moments == of_both["Adam"]
    assert all(num_references(config) == number for config, number in ((both, 1), (head, 0)))


def test_rows_of_the_head_are_images_times_noise_levels(make_config):
    def rows(**head):
        return head_rows(make_config(**HEAD, head=head))

    assert rows() == 2 * 4 * 3  # all images of a step
    assert rows(micro_batch_size=5) == 5
    assert rows(micro_batch_size=5, method={"type": "nft", "times_per_image": 2}) == 4
    assert rows(micro_batch_size=1, method={"type": "flow_grpo", "window": 3}) == 3


def test_the_images_of_a_run_are_told(make_config, policy_path):
    config = make_config(**HEAD, head={"method": {"type": "flow_grpo", "window": 2}})
    size = 4 * math.prod((BLIP3oNext.shapes(policy_path).transformer.config.in_channels, 7, 7))
    told = {"prompts": 2, "completions": 4, "noises": 3, "images": 24, "latents": 24 * 4 * size, "run": 96}
    assert images_of(config, policy_path) == told
    assert images_of(make_config(), policy_path) == told | {"noises": 1, "images": 8, "latents": 0, "run": 32}


def test_times_are_of_what_is_learnt(make_config, policy_path):
    run = write_run(make_config(), {"sample": 1, "decode": 1, "score": 1, "train": 1})
    with pytest.raises(ConfigError, match="its learn is tokens, this run's is head from 3 images of a completion"):
        measured_times(make_config(**HEAD), policy_path, run)
    own = write_run(make_config(**HEAD), {"sample": 1, "decode": 1, "score": 1, "train": 1})
    assert measured_times(make_config(**HEAD), policy_path, own).train == 1 / 8
    assert measured_times(load_run_config(CONFIGS / "tiny_head.yaml"), resolve_policy_path("tiny_rough")) is None


def test_checkpointing_and_smaller_batches_keep_less(released):
    config = load_config(released)
    whole, half = (kept_activations(config, batch, 800, 2, False) for batch in (4, 2))
    assert whole == pytest.approx(2 * half, rel=0.01)  # positions are shared by the rows
    assert kept_activations(config, 4, 800, 2, True) < whole / 5


def write_run(config, seconds):
    """A run folder with these stage seconds in every step."""
    folder = RunFolder(config.run_dir)
    folder.prepare(config)
    lines = [{"step": step, **{f"time/{name}": value for name, value in seconds.items()}} for step in (1, 2, 3, 4)]
    folder.metrics.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder.path


def test_times_scale_from_a_measured_run(make_config, policy_path):
    run = write_run(
        make_config(rollout={"num_diffusion_steps": 4}), {"sample": 0.8, "decode": 3.2, "score": 1.6, "train": 2.4}
    )  # 8 images, one worker each
    larger = make_config(
        rollout={"prompts_per_step": 8, "num_diffusion_steps": 8}, cluster={"samplers": 2, "decoders": 4, "trainers": 2}
    )
    seconds = predict(larger, measured_times(larger, policy_path, run))
    assert seconds == pytest.approx(
        {
            "sample": 0.8 * 4 / 2,
            "decode": 3.2 * 4 * 2 / 4,
            "score": 1.6 * 4,
            "train": 2.4 * 4 / 2,
            "step at best": 6.4 + 4.8,
            "step at worst": 1.6 + 6.4 + 6.4 + 4.8,
        }
    )
    assert measure_run(run).source.endswith("medians of 2 steps")


def test_several_updates_share_the_seconds_of_a_rollout(make_config, policy_path):
    """In what is predicted, and in what is measured: the second step of a batch has no stages before the training."""
    updates = {"num_iterations": 2}
    run = write_run(make_config(trainer=updates), {"sample": 0.8, "decode": 3.2, "score": 1.6, "train": 2.4})
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    for line in lines[1::2]:
        for name in ("sample", "decode", "score"):
            del line[f"time/{name}"]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    times = measured_times(make_config(), policy_path, run)
    once, twice = predict(make_config(), times), predict(make_config(trainer=updates), times)
    for name in ("sample", "decode", "score"):
        assert twice[name] == pytest.approx(once[name] / 2)
    assert once["decode"] == pytest.approx(3.2) and once["train"] == twice["train"] == pytest.approx(2.4)
    assert twice["step at best"] == pytest.approx(1.6 + 2.4)


def test_a_run_of_another_device_measures_nothing_here(make_config, policy_path):
    run = write_run(make_config(), {"sample": 1, "decode": 1, "score": 1, "train": 1})
    on_gpus = {f"gpus_per_{kind}": 1 for kind in ("trainer", "sampler", "decoder")}
    with pytest.raises(ConfigError, match="its device is cpu, this run's is gpu"):
        measured_times(make_config(cluster=on_gpus), policy_path, run)


def test_shipped_constants_are_of_the_shipped_policy_and_name_their_source():
    config = load_run_config(CONFIGS / "tiny_ocr.yaml")
    times = measured_times(config, resolve_policy_path("tiny"))
    assert times is not None and times.source
    assert measured_times(config.model_copy(update={"policy": config.policy.model_copy(update={"dtype": "bfloat16"})}),
                          resolve_policy_path("tiny")) is None  # fmt: skip


def test_the_command_prints_tables_or_json(released):
    runner, file = CliRunner(), str(CONFIGS / "blip3o_next_ocr.yaml")
    shown = runner.invoke(app, ["plan", file, f"policy.path={released}"])
    assert shown.exit_code == 0 and "changes nothing" not in shown.output, shown.output
    inert = runner.invoke(app, ["plan", file, f"policy.path={released}", "trainer.epsilon=0.3"])
    assert "warning: trainer.epsilon=0.3 changes nothing: every batch gets one" in inert.output.replace("\n", " ")
    assert "trainer" in shown.output and "none measured for this policy" in shown.output
    plan = runner.invoke(app, ["plan", file, f"policy.path={released}", "--json"])
    assert json.loads(plan.output)["gpus"] == 8
    refused = runner.invoke(app, ["plan", file, f"policy.path={released}", "cluster.gpus_per_node=4"])
    assert refused.exit_code == 2 and "asks for 8 GPUs in all" in refused.output.replace("\n", " ")
    rest = runner.invoke(app, ["plan", file, f"policy.path={released}", "cluster.trainers=5"])
    assert rest.exit_code == 2 and "does not divide over" in rest.output.replace("\n", " ")
