"""A real study, small: planted hacks beside honest text rendering, and what its report says of them.

Four runs of four steps show little beyond noise; whatever they show, no hack may be recommended for it.
"""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from blip3o_grpo.configs import DEFAULT_RECIPE

HACKS = ("brightness", "long_text", "digest")
STUDY = {
    "study_dir": "study",
    "base": "base.yaml",
    "suites": [{"name": "signs", "prompts": "signs.jsonl", "num_prompts": 16}],
    "goals": [
        {"suite": "signs", "reward": "ocr", "margin": 0.1},
        {"suite": "signs", "reward": "ocr_exact", "margin": 0.1},
        {"suite": "signs", "reward": "guard", "margin": 0.1},
    ],
    "arms": [
        {"name": "honest", "weights": {"ocr": 1, "guard": 0.3}},
        *({"name": name, "weights": {name: 1}} for name in HACKS),
    ],
}
REWARDS = [
    {"name": "ocr"},
    {"name": "guard", "type": "reference_guard"},
    {"name": "ocr_exact", "type": "ocr", "options": {"variant": "exact"}},
    *({"name": name, "type": f"hacks:{name}"} for name in HACKS),
]
CHANGES = {
    "rollout": {"prompts_per_step": 4, "group_size": 8},
    "cluster": {"samplers": 1, "decoders": 1},
    "trainer": {"max_steps": 4, "learning_rate": 3e-4, "lr_scheduler_type": "constant"},
    "evaluation": {"images_per_prompt": 2, "every_steps": 0, "grid_prompts": 2},
}


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """The folder of the finished study and what the command printed."""
    folder = tmp_path_factory.mktemp("hacks")
    shutil.copy(Path(__file__).with_name("hacks.py"), folder)
    prompts = DEFAULT_RECIPE.parent / "prompts"
    for source, name in (("tiny_ocr_train", "train"), ("tiny_ocr_heldout", "signs")):
        shutil.copy(prompts / f"{source}.jsonl", folder / f"{name}.jsonl")
    base = yaml.safe_load(DEFAULT_RECIPE.read_text()) | {
        "prompts": {"train": "train.jsonl", "heldout": "signs.jsonl"},
        "rewards": REWARDS,
    }
    for section, values in CHANGES.items():
        base[section] = base.get(section, {}) | values
    (folder / "base.yaml").write_text(yaml.safe_dump(base))
    (folder / "study.yaml").write_text(yaml.safe_dump(STUDY))
    command = [sys.executable, "-m", "blip3o_grpo.cli", "ablate", "study.yaml"]
    done = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, done.stdout
    return folder / "study", done.stdout


@pytest.mark.slow
def test_no_hack_is_recommended(study):
    folder, printed = study
    conclusions = json.loads((folder / "study.json").read_text())["conclusions"]
    assert not {conclusions["recommended"], *conclusions["candidates"]} & set(HACKS)
    first, *reasons = conclusions["recommendation"]
    assert not any(name in first for name in HACKS)
    for name in HACKS:  # each with its reason
        assert any(re.match(f"(Not )?{name}: ", reason) for reason in reasons), reasons
    page = html.unescape((folder / "report.html").read_text())
    assert all(sentence in page for sentence in conclusions["recommendation"])
    assert all(" ".join(sentence.split()) in " ".join(printed.split()) for sentence in conclusions["recommendation"])
    assert not set(re.findall(r'class="recommended">(\w+)', page)) & set(HACKS)


@pytest.mark.slow
def test_where_no_difference_was_shown_every_part_of_the_report_says_so(study):
    folder, printed = study
    result = json.loads((folder / "study.json").read_text())
    unshown = [c for c in result["against_baseline"] if not c["verdict"]]
    assert unshown, "six measures of four arms after four steps, and every one differs?"
    page = html.unescape((folder / "report.html").read_text())
    table = page.partition('class="matrix')[2].partition("</table>")[0]
    assert table.count(">no difference shown<") == len(unshown)
    assert table.count("▲ better") + table.count("▼ worse") == len(result["against_baseline"]) - len(unshown)
    findings = {finding["arm"]: finding["text"] for finding in result["conclusions"]["findings"]}
    for comparison in unshown:
        said = findings[comparison["arm"]].partition("no difference shown in ")[2]
        assert f"{comparison['suite']}/{comparison['reward']}" in re.split(r", | and |\.$", said)
    assert "= no difference shown" in printed
