"""The build of the tiny BLIP3-o: all stages at smoke size, exact resuming, and what the shipped weights paint."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from blip3o_grpo.policies.blip3o.policy import BLIP3o
from blip3o_grpo.policies.tiny_world.blip3o import random_blip3o
from scripts.tiny_build import training
from scripts.tiny_build.blip3o import draw_shapes, text_losses, text_rows
from scripts.tiny_build.blip3o_measures import measure_arm, report

SCRIPT = Path(__file__).parents[2] / "scripts" / "build_tiny_blip3o.py"
ARMS = ("flow_sequential", "flow_joint", "mse_sequential")


@pytest.mark.slow
def test_smoke_build_writes_policies_and_measures(tmp_path):
    command = [sys.executable, str(SCRIPT), "--smoke", "--compare", "--threads", "1", "--work", str(tmp_path / "work")]
    command += ["--output", str(tmp_path / "policy")]
    subprocess.run(command, check=True, timeout=300)
    BLIP3o.from_pretrained(tmp_path / "policy")
    measures = json.loads((tmp_path / "policy" / "measures.json").read_text())["measures"]
    assert measures["pixel_decoder"]["strict"]["mean"] == 1.0
    assert {*ARMS, "rough", *(f"{arm} - {ARMS[0]}" for arm in (*ARMS[1:], "rough"))} < measures.keys()
    trained = [BLIP3o.from_pretrained(tmp_path / "work" / arm).ar.state_dict() for arm in ("ar", *ARMS, "rough")]
    moved = [any(not torch.equal(value, trained[0][name]) for name, value in arm.items()) for arm in trained[1:]]
    assert moved == [False, True, False, False]
    before = (tmp_path / "work" / "flow_sequential" / "model.safetensors").stat().st_mtime_ns
    subprocess.run(command, check=True, timeout=300)
    assert (tmp_path / "work" / "flow_sequential" / "model.safetensors").stat().st_mtime_ns == before


def test_a_stopped_fit_ends_as_an_uninterrupted_one(tmp_path, monkeypatch):
    monkeypatch.setattr(training, "CHECKPOINT_STEPS", 3)

    def run(file, stop_at=None):
        parameter, generator = torch.nn.Parameter(torch.zeros(4)), torch.Generator().manual_seed(1)
        calls = []

        def losses(rows):
            calls.append(rows)
            if len(calls) == stop_at:
                raise KeyboardInterrupt
            noise = torch.randn(4, generator=generator)
            return {"loss": (parameter - rows.float().mean() - 0.1 * noise).square().sum()}

        try:
            training.fit("toy", [parameter], losses, 9, 8, 2, generator, Console(quiet=True), 0.1, file)
        except KeyboardInterrupt:
            return len(calls), None
        return len(calls), parameter.detach()

    whole = run(tmp_path / "whole.pt")
    assert run(tmp_path / "cut.pt", stop_at=6) == (6, None)
    again = run(tmp_path / "cut.pt")
    assert (whole[0], again[0]) == (8, 5) and torch.equal(whole[1], again[1]) and whole[1].abs().min() > 0


def test_text_losses_are_those_of_the_answer_alone(tmp_path):
    policy = BLIP3o.from_pretrained(random_blip3o(tmp_path))
    scenes = draw_shapes(3, 4)
    rows, answers = text_rows(policy, scenes)
    with torch.no_grad():
        found = text_losses(policy, rows, answers)
        for row, length, loss in zip(rows, answers, found, strict=True):
            hidden = policy.ar(input_ids=torch.tensor([row])).last_hidden_state[0]
            said = (hidden @ policy.ar.embed_tokens.weight.T).log_softmax(-1)
            wanted = [-said[place - 1, row[place]] for place in range(len(row) - length, len(row))]
            torch.testing.assert_close(loss, torch.stack(wanted).mean(), atol=1e-4, rtol=1e-4)
    end = policy.prompts.tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert all(row[-1] == end and policy.config["image_start_token_id"] not in row for row in rows)


def test_the_shipped_weights_paint_what_is_asked_for_and_leave_rl_something_to_teach(tmp_path):
    """A short look at the weights themselves; the recorded measures have many times as many scenes."""
    scenes = [scene for scene in draw_shapes(200, 31, heldout=True) if scene.metadata["tag"] == "single_object"][:12]
    measured = measure_arm(BLIP3o.from_pretrained("tiny_blip3o"), "flow", scenes, 1, tmp_path / "grid.png")
    assert 0.15 <= measured["strict"].mean() <= 0.75 and measured["text"].max() < 0.2


def test_a_report_pairs_the_arms_scene_by_scene():
    console = Console(quiet=True)
    first, second = np.array([0.0, 1.0, 0.0, 1.0, 1.0, 0.0]), np.array([1.0, 1.0, 0.0, 1.0, 1.0, 1.0])
    values = {"a": {"strict": first}, "b": {"strict": second}}
    told = report(values, np.ones(6), "a", ["x", "y"] * 3, console)
    assert told["b - a"]["strict"]["mean"] == pytest.approx(1 / 3) and told["b - a"]["strict"]["n"] == 6
    assert told["a by tag"]["x"]["mean"] == pytest.approx(1 / 3) and told["a"]["strict"]["mean"] == 0.5
