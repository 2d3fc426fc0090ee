"""The tutorial: what it says of its files is so, and its commands run from top to bottom in a fresh checkout."""

import json
import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from blip3o_grpo.configs import load_run_config, load_warmstart_config
from blip3o_grpo.configs.warmstart import WarmstartConfig
from blip3o_grpo.prompt_data.overlap import find_overlaps
from blip3o_grpo.rewards import check_reward
from blip3o_grpo.rollout import load_prompts
from blip3o_grpo.warmstart import read_captions
from scripts.link_package import link

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/tutorial.md").read_text(encoding="utf-8")
EXAMPLE = ROOT / "examples/own_images"


def blocks(language: str) -> list[str]:
    """Code of the page in this language, in its order."""
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    """The folder that the page's first command writes."""
    folder = tmp_path_factory.mktemp("own_images")
    subprocess.run([sys.executable, EXAMPLE / "make_pictures.py", folder], check=True, timeout=300)
    return folder


def test_there_are_forty_pictures_with_captions_that_a_warm_start_takes(written):
    config = WarmstartConfig(run_dir="none", images=str(written / "pictures"), captions=str(written / "captions.jsonl"))
    pictures = read_captions(config)
    assert len(pictures) == 40 and {Image.open(picture.path).size for picture in pictures} == {(56, 56)}
    assert (written / "captions.jsonl").read_text(encoding="utf-8").splitlines()[0] in PAGE
    shipped = load_warmstart_config(ROOT / "configs/tiny_warmstart.yaml")
    assert Path(shipped.images).resolve() == ROOT / "data/own_images/pictures"
    assert Path(shipped.captions).resolve() == ROOT / "data/own_images/captions.jsonl"


def test_no_word_is_in_two_of_pictures_training_and_held_out_prompts(written):
    train, heldout = (load_prompts(written / f"{name}.jsonl") for name in ("train", "heldout"))
    drawn = {json.loads(line)["text"] for line in (written / "captions.jsonl").read_text().splitlines()}
    assert not find_overlaps(train, heldout)
    assert not drawn & {prompt.text for prompt in (*train, *heldout)}


def test_the_reward_on_the_page_is_the_file_and_prefers_signs_that_hang_high():
    assert (EXAMPLE / "my_rewards.py").read_text(encoding="utf-8") in blocks("python")
    draw = runpy.run_path(str(EXAMPLE / "make_pictures.py"))["draw_sign"]
    pictures = [np.asarray(draw("TEA", 2, row)) for row in (1, 2, 3)] + [np.full((56, 56, 3), 200, np.uint8)]
    checked = check_reward("my_rewards:hangs_high", folder=EXAMPLE, images=pictures, prompts=["a tea house sign"] * 4)
    first, second, third, without = checked
    assert first > second + 0.3 > third + 0.6 and without == 0


def test_the_recipe_continues_where_the_warm_start_ends():
    config = load_run_config(EXAMPLE / "train.yaml")
    assert Path(config.policy.path).resolve() == ROOT / "runs/tiny_warmstart/policy"
    assert {Path(file).resolve().parent for file in (config.prompts.train, config.prompts.heldout)} == {
        ROOT / "data/own_images"
    }


@pytest.mark.slow
def test_its_commands_run_from_top_to_bottom_and_grpo_improves_the_policy(tmp_path):
    """In a copy of what is under version control; only the environment is this one's."""
    checkout = tmp_path / "checkout"
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (ROOT / name).is_file():
            (checkout / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, checkout / name)
    (checkout / ".venv").symlink_to(sys.prefix)
    link(tmp_path / "package", checkout)
    commands = "set -euo pipefail\n" + "".join(blocks("bash"))
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "package")}
    done = subprocess.run(["bash", "-c", commands], cwd=checkout, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]
    for name in set(re.findall(r"`((?:runs|data)/[\w./]+)`", PAGE)):
        assert (checkout / name).exists(), name
    summary = json.loads((checkout / "runs/own_images/summary.json").read_text())
    change = summary["heldout"]["change"]["high"]
    assert change["low"] > 0, change
    assert str(checkout) in (checkout / "runs/own_images/config.yaml").read_text()  # not the checkout of this test
