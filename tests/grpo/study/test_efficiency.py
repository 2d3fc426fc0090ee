"""How fast arms rise: areas and passages by hand, what the page and its numbers say, targets that nothing would see."""

import json
import math
import shutil
from types import SimpleNamespace

import numpy as np
import pytest

from blip3o_grpo.configs import ConfigError
from blip3o_grpo.configs.study import load_study_config
from blip3o_grpo.evaluation.heldout import Evaluation
from blip3o_grpo.report.reading import Problems, read_steps
from blip3o_grpo.study.design import plan_study, read_plan
from blip3o_grpo.study.efficiency import Course, heights, mean_line, on_one_grid, read_courses
from blip3o_grpo.study.finished import report_study
from blip3o_grpo.study.matrix import Column
from blip3o_grpo.study.passages import at, find_passages, first_reached
from tests.grpo.study.conftest import EFFECTS, save_evaluation

IDS = ("a", "b", "c", "d")
COLUMN = Column("signs", "ocr", IDS)
NAMES = ("before", "step-12", "after")


def course(*scores, images=(0, 100, 200), minutes=(0.0, 1.0, 3.0), batches=(0, 1, 2)):
    """A run whose prompts score the same, or `(a, b, c, d)` each on its own."""
    evaluations = tuple(
        SimpleNamespace(
            step=step, per_prompt={id_: {"ocr": float(np.broadcast_to(score, 4)[i])} for i, id_ in enumerate(IDS)}
        )
        for step, score in enumerate(scores)
    )
    size = len(scores)
    return Course(
        np.array(batches[:size]), np.array(images[:size], float), np.array(minutes[:size], float), evaluations
    )


def passage(runs, target=0.5):
    return find_passages({"a": mean_line(runs, COLUMN)}, target, "start")["a"]


def test_height_is_the_area_over_the_images():
    runs = {0: course(0.0, 0.4, 0.6), 3: course((0.0, 0.2, 0.0, 0.0), 0.2, 0.2)}
    found = heights(runs, COLUMN, 200.0)
    np.testing.assert_allclose(found[:, 0], (20 + 50) / 200)
    np.testing.assert_allclose(found[:, 1], [30 / 200, 40 / 200, 30 / 200, 30 / 200])
    np.testing.assert_allclose(heights(runs, COLUMN, 150.0)[:, 0], (20 + 22.5) / 150)  # ends between two evaluations


def test_a_target_is_reached_on_the_line_between_two_evaluations():
    x = np.array([0.0, 100.0, 300.0])
    assert at(first_reached(np.array([0.2, 0.6, 0.4]), 0.5), x) == pytest.approx(75)
    assert at(first_reached(np.array([0.2, 0.4, 0.6]), 0.5), x) == pytest.approx(200)
    assert first_reached(np.array([0.5, 0.1, 0.9]), 0.5) == 0
    assert math.isinf(at(first_reached(np.array([0.2, 0.3, 0.4]), 0.5), x))


def test_images_and_minutes_to_a_target_are_those_of_the_mean():
    found = passage({0: course(0.0, 0.4, 0.8), 1: course(0.0, 0.4, 0.8)})
    images, minutes = found.images, found.minutes
    assert (images.mean, images.low, images.high, images.n) == pytest.approx((125, 125, 125, 4))
    assert (minutes.mean, minutes.low, minutes.high) == pytest.approx((1.5, 1.5, 1.5))
    unsure = passage({0: course(0.0, 0.2, (0.0, 0.0, 1.0, 1.0))}).images
    assert unsure.mean == 200 and unsure.low < 200 and math.isinf(unsure.high)
    never = passage({0: course(0.0, 0.2, 0.4)}).images
    assert math.isinf(never.mean) and math.isinf(never.low)


def test_seeds_that_differ_widen_the_interval():
    images = passage({0: course(0.0, 0.4, 0.8), 1: course(0.0, 0.4, 0.4)}).images
    assert images.mean == pytest.approx(150) and images.low < 130 and math.isinf(images.high)


@pytest.mark.parametrize("seed_sd", [0.0, 0.03])
def test_the_interval_holds_the_truth_about_as_often_as_it_says(seed_sd):
    """Studies of three seeds and 32 prompts whose true course reaches 0.5 after 100 images."""
    random, hits = np.random.default_rng(0), 0
    ids = tuple(map(str, range(32)))
    column = Column("signs", "ocr", ids)
    for _ in range(60):
        difficulty = random.normal(0, 0.2, 32)
        runs = {}
        for seed in range(3):
            luck = random.normal(0, seed_sd)
            rows = [difficulty + level + luck * level + random.normal(0, 0.1, 32) for level in (0.2, 0.5, 0.8)]
            evaluations = tuple(
                SimpleNamespace(step=i, per_prompt={id_: {"ocr": float(v)} for id_, v in zip(ids, row, strict=True)})
                for i, row in enumerate(rows)
            )
            runs[seed] = Course(np.arange(3), np.array([0.0, 100.0, 200.0]), np.arange(3.0), evaluations)
        found = find_passages({"a": mean_line(runs, column)}, 0.5, "start")["a"].images
        hits += found.low <= 100 <= found.high
    assert hits >= 53  # of 60; .95 expected, and 53 or less of them have a probability of 4 %


def test_arms_are_compared_in_the_images_that_they_need():
    lines = {
        "plain": mean_line({0: course(0.0, 0.4, 0.8)}, COLUMN),
        "fast": mean_line({0: course(0.0, 0.8, 0.9)}, COLUMN),
        "never": mean_line({0: course(0.0, 0.1, 0.2)}, COLUMN),
    }
    found = find_passages(lines, 0.5, "plain")
    assert found["fast"].saved.mean == pytest.approx(62.5) and found["fast"].saved.low == pytest.approx(62.5)
    assert found["plain"].saved is None and found["never"].saved is None


def test_an_evaluation_that_one_seed_lacks_is_left_out_of_the_mean():
    late = course(0.0, 0.4, 0.8)
    lacking = late.only([True, False, True])
    assert passage({0: late, 1: lacking}, 0.4).images.mean == pytest.approx(100)


def test_an_arm_that_is_evaluated_more_often_is_read_at_the_batches_of_all():
    often = course(0.0, 0.3, 0.5, 0.55, 0.6, images=range(0, 500, 100), minutes=range(5), batches=range(5))
    rare = course(0.0, 0.5, 0.6, images=(0, 200, 450), minutes=range(3), batches=(0, 2, 5))
    found = on_one_grid({"often": {0: often}, "rare": {0: rare}})
    assert found["often"][0].images.tolist() == [0, 200, 400]  # and its end
    assert found["rare"][0].images.tolist() == [0, 200, 450]
    assert [e.step for e in found["often"][0].evaluations] == [0, 2, 4]


@pytest.fixture
def evaluated(finished_study, tmp_path):
    """The finished study in a folder of its own, whose runs were evaluated at step 12 too, half way."""
    folder = tmp_path / "study"
    shutil.copytree(finished_study.folder, folder)
    plan = read_plan(folder)
    for trial in plan.trials:
        half = {name: effect / 2 for name, effect in EFFECTS[trial.arm].items()}
        save_evaluation(plan, trial, "step-12", half, 12)
    return folder


def test_the_page_and_its_numbers_tell_how_fast_every_arm_rises(evaluated):
    study = evaluated / "study.yaml"
    study.write_text(study.read_text().replace("goals: []", "goals:\n- {suite: shapes, reward: geneval, target: 0.5}"))
    report_study(evaluated)
    numbers = json.loads((evaluated / "report.json").read_text(), parse_constant=pytest.fail)
    by_arm = {found["arm"]: found for found in numbers["sample_efficiency"]}
    assert by_arm.keys() == {"text", "both"}
    both, text = by_arm["both"], by_arm["text"]
    assert both["images"] == 24 * 16 and both["target"] == 0.5
    means = [
        [Evaluation.load(trial.folder.evaluations / f"{name}.json").means["geneval"] for name in NAMES]
        for trial in read_plan(evaluated).trials
        if trial.arm == "both"
    ]
    before, half, after = np.mean(means, axis=0)
    assert both["difference"]["mean"] == pytest.approx((before + 2 * half + after) / 4 - before)
    assert both["difference"]["low"] > 0 and text["difference"]["low"] < 0 < text["difference"]["high"]
    assert 0 < both["images_to_target"]["mean"] < 24 * 16
    assert both["reached"] and not text["reached"]
    assert text["images_to_target"]["mean"] is None and text["images_saved"] is None
    html = (evaluated / "report.html").read_text()
    assert "Sample efficiency" in html and "not reached" in html and "Held-out: shapes/geneval" in html


def test_minutes_are_those_of_the_steps(evaluated):
    plan = read_plan(evaluated)
    lines = [{"step": step, "time/step": 30.0} for step in range(1, 25)]
    found = read_courses(plan.trials[:1], {plan.trials[0].name: lines}, Problems())
    (run,) = found[plan.trials[0].arm].values()
    assert run.minutes.tolist() == [0, 6, 12] and run.images.tolist() == [0, 12 * 16, 24 * 16]


def test_a_damaged_evaluation_costs_a_point_of_its_curve(evaluated):
    plan, problems = read_plan(evaluated), Problems()
    (plan.trials[0].folder.evaluations / "step-12.json").write_text("{")
    steps = {trial.name: read_steps(trial.folder, problems) for trial in plan.trials}
    runs = read_courses(plan.trials, steps, problems)[plan.trials[0].arm]
    assert sorted(len(run.images) for run in runs.values()) == [2, 3]
    assert len(problems.sentences) == 1 and "step-12.json" in problems.sentences[0]


def test_without_evaluations_on_the_way_nothing_is_said(finished_study, tmp_path):
    folder = tmp_path / "study"
    shutil.copytree(finished_study.folder, folder)
    report_study(folder)
    assert "Sample efficiency" not in (folder / "report.html").read_text()


def test_an_evaluation_without_all_scores_is_left_out():
    run = course(0.0, 0.4, 0.8)
    run.evaluations[1].per_prompt["b"]["ocr"] = None
    assert run.measured(COLUMN).images.tolist() == [0, 200]
    del run.evaluations[2].per_prompt["c"]
    assert run.measured(COLUMN).images.tolist() == [0]


@pytest.mark.parametrize("every", [0, 24, 100])
def test_a_target_that_nothing_would_see_is_refused(study_files, every):
    goals = [{"suite": "shapes", "reward": "geneval", "target": 0.5}]
    file = study_files.study(goals=goals, overrides={"evaluation.every_steps": every})
    with pytest.raises(ConfigError, match=rf"goals\.0\.target=0\.5: .*'text' .*every_steps={every} of .*max_steps=24"):
        plan_study(load_study_config(file))
    assert load_study_config(file, smoke=True).goals[0].target is None
