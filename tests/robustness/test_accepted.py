"""Checks refuse what is wrong and nothing else: a corpus that was accepted, and right, before they were tightened."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from blip3o_grpo.configs import DEFAULT_RECIPE, load_run_config
from blip3o_grpo.policies import BLIP3oNext
from blip3o_grpo.report import write_report
from blip3o_grpo.rewards import find_reward
from blip3o_grpo.rewards.geneval.records import parse_record
from blip3o_grpo.rewards.ocr.quotes import target_texts
from blip3o_grpo.rollout import load_prompts
from tests.robustness.accepted import CHECKPOINTS, OVERRIDES, RUNS, copy, prompt_files

OFFICIAL = Path(os.environ.get("BLIP3O_GRPO_TEST_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))
PROMPTS = sorted((DEFAULT_RECIPE.parent / "prompts").glob("*.jsonl"))


def test_the_corpus_is_as_large_as_it_says():
    assert len(prompt_files()) >= 60 and len(OVERRIDES) >= 60 and len(CHECKPOINTS) + len(RUNS) >= 60


@pytest.mark.parametrize(("name", "content", "targets"), [pytest.param(*f[1:], id=f[0]) for f in prompt_files()])
def test_prompt_files(tmp_path, name, content, targets):
    file = tmp_path / name
    file.write_bytes(content)
    prompts = load_prompts(file)
    for prompt in prompts:
        find_reward("ocr").check_prompt(prompt.text, prompt.metadata, {})
        assert find_reward("ocr").applies(prompt.text, prompt.metadata)
    assert [target_texts(prompt.text, prompt.metadata) for prompt in prompts] == targets


@pytest.mark.parametrize("override", OVERRIDES)
def test_overrides(override):
    load_run_config(DEFAULT_RECIPE, [override])


@pytest.mark.parametrize("edit", [pytest.param(edit, id=name) for name, edit in CHECKPOINTS])
def test_checkpoints(policy, tmp_path, edit):
    folder = copy(policy, tmp_path / "checkpoint")
    edit(folder)
    BLIP3oNext.check(folder)


@pytest.mark.parametrize("edit", [pytest.param(edit, id=name) for name, edit in RUNS])
def test_run_folders(shared, tmp_path, edit):
    folder = copy(shared[2], tmp_path / "run")
    edit(folder)
    assert write_report(folder).stat().st_size > 1000


@pytest.mark.parametrize("file", PROMPTS, ids=lambda file: file.name)
def test_shipped_prompts(file):
    for prompt in load_prompts(file):
        assert any(find_reward(reward).applies(prompt.text, prompt.metadata) for reward in ("ocr", "geneval"))
        find_reward("ocr").check_prompt(prompt.text, prompt.metadata, {})
        find_reward("geneval").check_prompt(prompt.text, prompt.metadata, {"detector": "shapes"})


@pytest.mark.skipif(not OFFICIAL.is_dir(), reason="no published test data; BLIP3O_GRPO_TEST_DATA names its folder")
def test_official_prompts():
    """1,018 of the OCR benchmark, 553 records of GenEval."""
    prompts = load_prompts(OFFICIAL / "ocr" / "test.txt")
    for prompt in prompts:
        find_reward("ocr").check_prompt(prompt.text, prompt.metadata, {})
    assert len(prompts) == 1018 and all(find_reward("ocr").applies(prompt.text, prompt.metadata) for prompt in prompts)
    lines = (OFFICIAL / "geneval" / "evaluation_metadata.jsonl").read_text(encoding="utf-8").splitlines()
    records = [json.loads(line) for line in lines]
    for record in records:
        parse_record(record)
        find_reward("geneval").check_prompt(record["prompt"], record, {})
    assert len(records) == 553
