"""Warm start: losses fall, `sequential` trains one part at a time, a resumed run repeats an uninterrupted one."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
import torch
from PIL import Image
from rich.console import Console
from safetensors.torch import load_file

from blip3o_grpo.configs.schema import PolicySection, WarmstartConfig
from blip3o_grpo.policies import BLIP3oNext, CheckpointError
from blip3o_grpo.policies.tiny_world import world
from blip3o_grpo.warmstart.anchor import anchor_loss, make_probe
from blip3o_grpo.warmstart.data import WarmstartData, WarmstartDataError
from blip3o_grpo.warmstart.supervised import Warmstart, draw_batch, run, warmstart_loss


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 drawn signs with captions."""
    target = tmp_path_factory.mktemp("pictures")
    rng, records = random.Random(0), []
    for number in range(24):
        scene = world.sample(rng, heldout=False, tag="sign")
        Image.fromarray(world.render(scene)).save(target / f"{number}.png")
        records.append({"file_name": f"{number}.png", "text": scene.prompt})
    (target / "captions.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return target


@pytest.fixture
def config(folder: Path, pictures: Path, tmp_path: Path) -> WarmstartConfig:
    return WarmstartConfig(
        run_dir=str(tmp_path / "run"),
        policy=PolicySection(path=str(folder)),
        images=str(pictures),
        captions=str(pictures / "captions.jsonl"),
        max_steps=6,
        batch_size=8,
        learning_rate=1e-3,
        warmup_steps=2,
        caption_swap=0.2,
        checkpoint_every_steps=3,
    )


def losses(config: WarmstartConfig) -> list[dict]:
    return [json.loads(line) for line in (Path(config.run_dir) / "metrics.jsonl").read_text().splitlines()]


def test_joint_training_lowers_both_losses(config):
    run(config.model_copy(update={"max_steps": 25}))
    seen = losses(config)
    for name in ("cross_entropy", "flow_matching"):
        assert seen[-1][name] < seen[0][name] - 0.1


def test_the_anchor_loss_keeps_where_and_which_in_the_hidden_states(config, pictures, tmp_path):
    """A probe fitted to the finished policy finds more after a warm start with the loss than after one without."""
    found = []
    for weight in (0.0, 1.0):
        changes = {"max_steps": 40, "anchor_weight": weight, "strategy": "sequential", "ar_steps": 40}
        finished = run(config.model_copy(update=changes | {"run_dir": str(tmp_path / f"anchor{weight}")}))
        policy = BLIP3oNext.from_pretrained(finished, parts=("ar", "head", "vision"))
        pairs = WarmstartData.read_captions(config)
        data = WarmstartData.encode(policy, pairs, tmp_path / f"anchor{weight}" / "encoded.safetensors", Console())
        batch = draw_batch(policy, data, config, 0)
        with torch.no_grad():
            hidden = policy.hidden_states(batch.ids, batch.mask)[:, 1:]
            embeddings = policy.ar.model.embed_tokens(batch.ids[:, -policy.image_tokens.num_tokens :])
            found.append(anchor_loss(make_probe(policy, batch.ids, batch.mask), hidden, embeddings)[1])
    without, with_loss = found
    assert with_loss["forgotten"] < 0.8 * without["forgotten"]
    assert with_loss["place"] < without["place"]


def test_noise_on_the_condition_reaches_the_head_alone(config):
    policy = BLIP3oNext.from_pretrained(config.policy.path, parts=("ar", "head", "vision"))
    Path(config.run_dir).mkdir()
    pairs = WarmstartData.read_captions(config)
    data = WarmstartData.encode(policy, pairs, Path(config.run_dir) / "encoded.safetensors", Console())
    metrics = []
    for noise in (0.0, 1.0):
        batch = draw_batch(policy, data, config.model_copy(update={"condition_noise": noise}), 0)
        metrics.append(warmstart_loss(policy, batch)[1])
    assert metrics[0]["cross_entropy"] == pytest.approx(metrics[1]["cross_entropy"], abs=1e-6)
    assert metrics[0]["flow_matching"] != metrics[1]["flow_matching"]


def test_sequential_training_leaves_the_ar_part_as_it_was(config, folder):
    finished = run(config.model_copy(update={"strategy": "sequential"}))
    before, after = load_file(folder / "model.safetensors"), load_file(finished / "model.safetensors")
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed and all(name.startswith(("model.sana.", "model.diffusion_connector.")) for name in changed)
    assert "cross_entropy" not in losses(config)[0]


def test_sequential_training_learns_the_ar_part_first(config, folder):
    finished = run(config.model_copy(update={"strategy": "sequential", "ar_steps": 6}))
    before, after = load_file(folder / "model.safetensors"), load_file(finished / "model.safetensors")
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed and not any("sana" in name or "connector" in name or "vision" in name for name in changed)
    run(config.model_copy(update={"strategy": "sequential", "ar_steps": 2, "run_dir": config.run_dir + "2"}))
    seen = [json.loads(line) for line in Path(config.run_dir + "2", "metrics.jsonl").read_text().splitlines()]
    assert [("cross_entropy" in line, "flow_matching" in line) for line in seen] == 2 * [(True, False)] + 4 * [
        (False, True)
    ]


@pytest.mark.parametrize(("strategy", "ar_steps"), [("joint", 1), ("sequential", 9)])
def test_steps_of_the_ar_part_that_cannot_be_are_refused(config, strategy, ar_steps):
    with pytest.raises(ValueError, match="ar_steps: "):
        WarmstartConfig(**(config.model_dump() | {"strategy": strategy, "ar_steps": ar_steps, "max_steps": 6}))


def test_a_resumed_run_repeats_the_uninterrupted_one(config, tmp_path, monkeypatch):
    whole = load_file(run(config) / "model.safetensors")
    again = config.model_copy(update={"run_dir": str(tmp_path / "again")})
    save = Warmstart._save

    def stop_after_saving(self, policy, target, optimizer):
        save(self, policy, target, optimizer)
        if optimizer:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Warmstart, "_save", stop_after_saving)
        run(again)
    resumed = load_file(run(again) / "model.safetensors")
    assert all(torch.allclose(whole[name], resumed[name], atol=1e-6) for name in whole)
    assert [line["step"] for line in losses(again)] == list(range(6))


def test_a_run_folder_of_another_configuration_is_refused(config):
    run(config)
    with pytest.raises(CheckpointError, match="these keys differ: learning_rate"):
        run(config.model_copy(update={"learning_rate": 1e-5}))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b'{"file_name": "0.png", "text": "\xff"}\n', "is not UTF-8"),
        (b'{"file_name": "0.png"}\n', r"captions\.jsonl:1: each line"),
        (b'{"file_name": "99.png", "text": "a"}\n', r"99\.png, which does not exist"),
    ],
)
def test_bad_captions_are_named_before_a_model_loads(config, tmp_path, content, message):
    captions = tmp_path / "captions.jsonl"
    captions.write_bytes(content)
    bad = config.model_copy(update={"captions": str(captions), "policy": PolicySection(path="/nowhere")})
    with pytest.raises(WarmstartDataError, match=message):
        run(bad)
