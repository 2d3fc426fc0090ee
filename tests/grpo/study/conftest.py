"""A small study whose trials are already finished, with known effects: nothing is trained."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
import yaml

from blip3o_grpo.configs.study import load_study_config
from blip3o_grpo.evaluation.grids import save_grid
from blip3o_grpo.evaluation.heldout import Evaluation, save_images
from blip3o_grpo.rollout.types import Completion, Rollout, RolloutGroup
from blip3o_grpo.study.design import plan_study

SIGNS, SHAPES = 40, 30
EFFECTS = {
    "start": {"ocr": 0.0, "geneval": 0.0, "guard": 0.0},
    "text": {"ocr": 0.3, "geneval": 0.0, "guard": -0.2},
    "both": {"ocr": 0.2, "geneval": 0.25, "guard": 0.0},
    "<b>nothing</b>": {"ocr": 0.0, "geneval": 0.0, "guard": 0.0},
}


@pytest.fixture(scope="session")
def study_files(tmp_path_factory, policy_path):
    """A base recipe, prompt files of two suites, and `study(**changes)`, which writes a study file beside them."""
    folder = tmp_path_factory.mktemp("study")
    signs = [{"id": f"s{i}", "prompt": f'a red sign that says "W{i}"', "target_text": f"W{i}"} for i in range(SIGNS)]
    include = [{"class": "circle", "count": 1}]
    shapes = [
        {"id": f"g{i}", "prompt": f"a photo of a circle, take {i}", "tag": "single_object", "include": include}
        for i in range(SHAPES)
    ]
    for name, lines in (("signs", signs), ("shapes", shapes), ("train", [*signs[:4], *shapes[:4]])):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "empty.jsonl").write_text("")
    (folder / "plain.jsonl").write_text('{"prompt": "<i>nothing</i> in particular"}\n')
    options = {"detector": "shapes", "colors": "nearest"}
    base = {
        "run_dir": "unused",
        "policy": {"path": str(policy_path)},
        "prompts": {"train": "train.jsonl", "heldout": "signs.jsonl"},
        "rollout": {"prompts_per_step": 4, "group_size": 4},
        "rewards": [
            {"name": "ocr"},
            {"name": "geneval", "options": options},
            {"name": "guard", "type": "reference_guard", "weight": 0.3},
        ],
        "trainer": {"max_steps": 24},
        "evaluation": {"num_prompts": 10, "images_per_prompt": 2, "grid_prompts": 3},
    }
    (folder / "base.yaml").write_text(yaml.safe_dump(base))
    signs_only = {"train": "signs.jsonl", "heldout": "signs.jsonl"}
    (folder / "ocr.yaml").write_text(yaml.safe_dump({**base, "prompts": signs_only, "rewards": [{"name": "ocr"}]}))

    def study(**changes):
        values = {
            "study_dir": str(tmp_path_factory.mktemp("out") / "study"),
            "base": "base.yaml",
            "seeds": [0, 1],
            "suites": [{"name": "signs", "prompts": "signs.jsonl"}, {"name": "shapes", "prompts": "shapes.jsonl"}],
            "arms": [
                {"name": "text", "weights": {"ocr": 1}},
                {"name": "both", "weights": {"ocr": 1, "geneval": 0.5}, "overrides": {"trainer": {"beta": 0.1}}},
            ],
            **changes,
        }
        path = folder / f"study-{np.random.default_rng().integers(1 << 60)}.yaml"
        path.write_text(yaml.safe_dump(values))
        return path

    return SimpleNamespace(folder=folder, study=study)


@pytest.fixture(scope="session")
def finished_study(study_files):
    """The plan of a study with three arms and two seeds, all finished, with the effects above."""
    arms = [
        {"name": "text", "weights": {"ocr": 1}},
        {"name": "both", "weights": {"ocr": 1, "guard": 0.5}, "overrides": {"trainer": {"beta": 0.1}}},
    ]
    plan = plan_study(load_study_config(study_files.study(arms=arms)))
    third = plan.study.arms[0].model_copy(update={"name": "<b>nothing</b>", "weights": {"guard": 1.0}})
    plan = type(plan)(
        plan.study.model_copy(update={"arms": (*plan.study.arms, third)}),
        plan.base,
        plan.suites,
        [
            *plan.trials,
            *(
                type(t)(third.name, t.seed, t.config.model_copy(update={"run_dir": str(plan.folder / f"n{t.seed}")}))
                for t in plan.trials[:2]
            ),
        ],
        plan.goals,  # shapes/geneval: no arm trains on it
    )
    for trial in plan.trials:
        finish(plan, trial)
    return plan


def finish(plan, trial):
    """What a trained run leaves behind, drawn from the arm's effects; noise of prompts is shared by all arms."""
    folder = trial.folder
    folder.prepare(trial.config)
    for name, arm, step in (("before", "start", 0), ("after", trial.arm, 24)):
        save_evaluation(plan, trial, name, EFFECTS[arm], step)
    rng = np.random.default_rng(trial.seed)
    with folder.metrics.open("w") as file:
        for step in range(1, 25):
            noise = rng.normal(0, 0.02)
            line = {"step": step, "kl/reference": 0.001 * step, "image/edges": 0.1, "image/diversity": 0.2 - step / 400}
            line |= {
                f"reward/{reward}": 0.4 + effect * step / 24 + noise for reward, effect in EFFECTS[trial.arm].items()
            }
            file.write(json.dumps(line) + "\n")
    folder.summary.write_text("{}")


def save_evaluation(plan, trial, name, effects, step):
    shared = np.random.default_rng(7)  # difficulty of prompts: the same for every arm and seed
    own = np.random.default_rng([trial.seed, step, 1, *trial.arm.encode()])
    per_prompt = {}
    for suite, prompts in plan.suites.items():
        for prompt in prompts:
            level, noise = shared.uniform(0.2, 0.6), own.normal(0, 0.05, 3)
            scores = [level + effects[r] + n for r, n in zip(("ocr", "geneval", "guard"), noise, strict=True)]
            applies = [suite == "signs", suite == "shapes", True]
            per_prompt[prompt.id] = {
                r: float(s) if a else None for r, s, a in zip(("ocr", "geneval", "guard"), scores, applies, strict=True)
            }
    scores = {r: [row[r] for row in per_prompt.values() if row[r] is not None] for r in effects}
    means = {reward: float(np.mean(values)) for reward, values in scores.items()}
    evaluation = Evaluation(step, len(per_prompt), 2, means, dict.fromkeys(means), per_prompt)
    evaluation.save(trial.folder.evaluations / f"{name}.json")
    shown = [plan.suites["signs"][0], plan.suites["shapes"][0]]
    groups = [
        RolloutGroup(prompt, [], tuple(_rollout(per_prompt[prompt.id], 60 * member + step) for member in range(2)))
        for prompt in shown
    ]
    save_images(trial.folder.evaluations / f"{name}-images", groups)
    save_grid(trial.folder.grids / f"{name}.png", groups)


def _rollout(rewards, level):
    completion = Completion(np.zeros(2, np.int32), np.zeros(2, np.float32), 0, 0)
    return Rollout(completion, np.full((56, 56, 3), level, np.uint8), rewards)
