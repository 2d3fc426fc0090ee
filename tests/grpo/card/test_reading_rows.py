"""Rows of texts and questions: the trained policy's distance from the start, and what less of is better."""

import shutil
from dataclasses import replace

import pytest
from rich.console import Console
from safetensors.torch import load_file, save_file

from blip3o_grpo.card.measures import make_rows
from blip3o_grpo.card.model_card import model_card
from blip3o_grpo.card.page import gather
from blip3o_grpo.card.plan import Request, plan_card
from blip3o_grpo.card.reading import read_tables
from blip3o_grpo.configs import ConfigError
from blip3o_grpo.policies.blip3o_next.checkpoint import SINGLE
from blip3o_grpo.run.folder import RunFolder


def run_of(config, policy_path, change):
    """Folder of a run that changed its policy's tensors."""
    folder = RunFolder(config.run_dir)
    folder.prepare(config)
    shutil.copytree(policy_path, folder.policy)
    tensors = load_file(folder.policy / SINGLE)
    save_file({name: change(name, tensor) for name, tensor in tensors.items()}, folder.policy / SINGLE)
    return folder.path


def forgetful(name, tensor):
    return tensor * 3.0 if name.startswith("model.layers.0.mlp.") else tensor


@pytest.fixture(scope="module")
def plan(make_config, policy_path):
    run = run_of(make_config(rewards=[{"name": "ocr"}]), policy_path, forgetful)
    plan = plan_card(run, Request(suites=["text", "understanding"], margins=["text_kl=0.0001"]))
    few = {name: (s, replace(d, items=dict(list(d.items.items())[:6]))) for name, (s, d) in plan.reading.items()}
    return replace(plan, reading=few)


@pytest.fixture(scope="module")
def rows(plan):
    rows = make_rows(*read_tables(plan, Console(quiet=True)), {}, plan.margins, plan.lower)
    return {row.name: row for row in rows}


def test_a_policy_that_forgot_texts_is_worse_by_its_distance(rows):
    assert list(rows) == ["texts/text_kl", "texts/text_nll", "questions/understanding"]
    kl = rows["texts/text_kl"]
    assert kl.before.mean == 0 and kl.after.mean == kl.change.mean > 0.0001 and kl.change.n == 6
    assert kl.lower_is_better and kl.verdict == "worse" and kl.margin == 0.0001
    assert rows["texts/text_nll"].lower_is_better and rows["texts/text_nll"].margin == 0.05
    assert not rows["questions/understanding"].lower_is_better


def test_page_and_model_card_say_that_less_is_better(rows, card, config):
    shown = replace(card, rows=[*card.rows, *rows.values()])
    assert list(gather(shown, RunFolder(card.run).path / "card.html")["sets"])[-2:] == ["texts", "questions"]
    text = model_card(shown, config)
    assert "texts/text_kl (less is better)" in text and "dataset_name" not in text.split("---")[2]


def test_a_checkpoint_that_cannot_see_leaves_understanding_out(make_config, policy_path, plan):
    assert not any("understanding" in sentence for sentence in plan.left_out)
    run = run_of(make_config(rewards=[{"name": "ocr"}]), policy_path, lambda name, tensor: tensor)
    tensors = load_file(run / "policy" / SINGLE)
    blind = {name: tensor for name, tensor in tensors.items() if "vision_tower" not in name}
    save_file(blind, run / "policy" / SINGLE)
    found = plan_card(run, Request())
    assert list(found.reading) == ["text"]
    assert any("suite understanding: " in s and "holds no VQ tokenizer" in s for s in found.left_out)
    with pytest.raises(ConfigError, match="--suites: suite understanding: .* cannot read pictures"):
        plan_card(run, Request(suites=["understanding"]))
