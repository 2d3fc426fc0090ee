"""What a warm start minimises: losses fall, each part learns when it should and no other does."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from blip3o_grpo.configs import WarmstartConfig
from blip3o_grpo.policies import BLIP3oNext
from blip3o_grpo.warmstart.anchor import anchor_loss, make_probe
from blip3o_grpo.warmstart.loss import draw_batch, warmstart_loss


def changed(before, after):
    """Names of the tensors that a run has changed."""
    before, after = load_file(before / "model.safetensors"), load_file(after / "model.safetensors")
    return {name for name in before if not torch.equal(before[name], after[name])}


def test_joint_training_lowers_both_losses(config, run):
    _, seen = run(config, max_steps=25)
    for name in ("cross_entropy", "flow_matching"):
        assert seen[-1][name] < seen[0][name] - 0.1


def test_the_anchor_loss_keeps_where_and_which_in_the_hidden_states(config, run, load, tmp_path):
    """A probe fitted to the finished policy finds more after a warm start with the loss than after one without."""
    found = []
    for weight in (0.0, 1.0):
        changes = {"max_steps": 40, "anchor_weight": weight, "strategy": "sequential", "ar_steps": 40}
        finished, _ = run(config, **changes, run_dir=str(tmp_path / f"anchor{weight}"))
        policy = BLIP3oNext.from_pretrained(finished.policy, parts=("ar", "head", "vision"))
        batch = draw_batch(policy, *load(policy, config)[:2], config, 0)
        with torch.no_grad():
            hidden = policy.hidden_states(batch.ids, batch.mask)[:, 1:]
            embeddings = policy.ar.model.embed_tokens(batch.ids[:, -policy.image_tokens.num_tokens :])
            found.append(anchor_loss(make_probe(policy, batch.ids, batch.mask), hidden, embeddings)[1])
    without, with_loss = found
    assert with_loss["forgotten"] < 0.8 * without["forgotten"]
    assert with_loss["place"] < without["place"]


def test_noise_on_the_condition_reaches_the_head_alone(config, start, load):
    prompt_ids, encoded, _ = load(start, config)
    metrics = []
    for noise in (0.0, 1.0):
        noisy = config.model_copy(update={"condition_noise": noise})
        metrics.append(warmstart_loss(start, draw_batch(start, prompt_ids, encoded, noisy, 0))[1])
    assert metrics[0]["cross_entropy"] == pytest.approx(metrics[1]["cross_entropy"], abs=1e-6)
    assert metrics[0]["flow_matching"] != metrics[1]["flow_matching"]


def test_labels_all_are_prompt_and_image_tokens_among_the_whole_vocabulary(config, start, load):
    """The same number as one row after the other without padding, rows with another picture's caption left out."""
    batch = draw_batch(start, *load(start, config)[:2], config, 0)
    assert 0 < batch.honest.sum() < len(batch.honest)
    total = count = 0
    with torch.no_grad():
        loss = warmstart_loss(start, batch, train_head=False, labels="all")[0]
        for ids, mask in zip(batch.ids[batch.honest], batch.mask[batch.honest], strict=True):
            row = ids[mask.bool()][None]
            logits = start.ar(row).logits[0, :-1]
            total += F.cross_entropy(logits, row[0, 1:], reduction="sum").item()
            count += row.shape[1] - 1
    assert loss.item() == pytest.approx(total / count, abs=1e-4)
    assert loss.item() != pytest.approx(warmstart_loss(start, batch, train_head=False)[0].item(), abs=0.1)


def test_the_head_as_released_trains_sanas_caption_parameters_only(config, policy_path, run):
    finished, _ = run(config, trains=("ar", "connector", "sana_caption"))
    names = changed(policy_path, finished.policy)
    assert {name for name in names if name.startswith("model.sana.")} == {
        "model.sana.caption_norm.weight",
        *(f"model.sana.caption_projection.linear_{i}.{kind}" for i in (1, 2) for kind in ("weight", "bias")),
    }
    assert any("diffusion_connector" in name for name in names) and "model.embed_tokens.weight" in names


def test_one_part_alone_trains_alone(config, policy_path, run, tmp_path):
    finished, seen = run(config, trains=("ar",))
    names = changed(policy_path, finished.policy)
    assert names and not any(part in name for part in ("sana", "connector", "vision") for name in names)
    assert "flow_matching" not in seen[0]
    finished, seen = run(config, trains=("connector",), run_dir=str(tmp_path / "other"))
    assert all("diffusion_connector" in name for name in changed(policy_path, finished.policy))
    assert "cross_entropy" not in seen[0]


def test_sequential_training_leaves_the_ar_part_as_it_was(config, policy_path, run):
    finished, seen = run(config, strategy="sequential")
    names = changed(policy_path, finished.policy)
    assert names and all(name.startswith(("model.sana.", "model.diffusion_connector.")) for name in names)
    assert "cross_entropy" not in seen[0]


def test_sequential_training_learns_the_ar_part_first(config, policy_path, run, tmp_path):
    finished, _ = run(config, strategy="sequential", ar_steps=6)
    names = changed(policy_path, finished.policy)
    assert names and not any("sana" in name or "connector" in name or "vision" in name for name in names)
    result, seen = run(config, strategy="sequential", ar_steps=2, run_dir=str(tmp_path / "other"))
    assert [("cross_entropy" in line, "flow_matching" in line) for line in seen] == 2 * [(True, False)] + 4 * [
        (False, True)
    ]
    assert result.losses == {"cross_entropy": seen[1]["cross_entropy"], "flow_matching": seen[-1]["flow_matching"]}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"strategy": "joint", "ar_steps": 1}, "ar_steps: only for strategy sequential"),
        ({"strategy": "sequential", "ar_steps": 9}, "ar_steps: 9 is more than max_steps, 6"),
        ({"strategy": "sequential", "ar_steps": 2, "trains": ["sana"]}, "ar_steps: the part 'ar' is not in trains"),
        ({"strategy": "sequential", "ar_steps": 2, "trains": ["ar"]}, "trains: after ar_steps=2 the head learns"),
        ({"trains": ["sana", "sana_caption"]}, "trains: 'sana' holds 'sana_caption'"),
        ({"trains": []}, "trains: nothing would learn"),
        ({"trains": ["ar", "ar"]}, "trains: 'ar' is named twice"),
    ],
)
def test_parts_and_steps_that_cannot_be_are_refused(config, changes, message):
    with pytest.raises(ValueError, match=message):
        WarmstartConfig(**(config.model_dump() | changes))
