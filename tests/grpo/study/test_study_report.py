"""The page of a study: five arms, damaged trials, colours that hold, and how to repeat it."""

import json
import shlex
import shutil

import pytest
from typer.testing import CliRunner

from blip3o_grpo.cli import app
from blip3o_grpo.configs.study import load_study_config
from blip3o_grpo.report.axes import SCORE
from blip3o_grpo.run.environment import record_start
from blip3o_grpo.study.ablate import write_results
from blip3o_grpo.study.bands import draw_bands
from blip3o_grpo.study.design import read_study
from blip3o_grpo.study.forest import draw_forest, reach
from blip3o_grpo.study.matrix import build_matrix, read_scores


def test_a_damaged_trial_is_left_out_and_the_rest_compared(finished_study, tmp_path):
    """Its evaluation, lines of its metrics, and `study.json`: one warning line each, and the page says the same."""
    folder = tmp_path / "study"
    shutil.copytree(finished_study.folder, folder)
    trial = folder / "arms/both/seed-1"
    (trial / "evaluations/after.json").write_text('{"step": ')
    (folder / "arms/text/seed-0/metrics.jsonl").write_text('{"step": 1, "reward/ocr": "x"}\n')
    (folder / "study.json").write_text('{"trials": []}')
    result = CliRunner().invoke(app, ["report", str(folder)])
    assert result.exit_code == 0, result.output
    lines = result.stderr.splitlines()
    assert len(lines) == 3 and all(line.startswith("warning: ") for line in lines)
    html = (folder / "report.html").read_text()
    for says in (
        "both/seed-1 is not compared",
        "metrics.jsonl:1: &#39;reward/ocr&#39;",
        "study.json: &#39;trials&#39;",
    ):
        assert says in html
    assert "Only one run has finished of both" in html
    numbers = json.loads((folder / "report.json").read_text(), parse_constant=pytest.fail)
    assert len(numbers["damaged"]) == 3 and "both/seed-1" not in numbers["finished"]
    assert {"low", "high", "num_prompts"} <= numbers["against_baseline"][0].keys()


def test_five_arms_have_a_panel_each_on_the_same_axes():
    """Each with the others in grey, named, with the band of its seeds; three arms still share one drawing."""
    arms = {
        f"arm {arm}": [
            [{"step": step, "reward/a": 0.1 * arm + 0.01 * step + 0.02 * seed} for step in range(1, 13)]
            for seed in range(2)
        ]
        for arm in range(5)
    }
    panels = draw_bands("a", arms, "reward/a", SCORE)
    assert [arm for arm, _ in panels] == list(arms)
    for index, (arm, svg) in enumerate(panels):
        assert f'aria-label="{arm} from' in svg and "optimiser step" in svg and "score" in svg
        assert f"var(--series-{index})" in svg and svg.count("var(--quiet)") >= 4 and "fill-opacity" in svg
        assert ">0.5<" in svg and ">1.0<" in svg
        assert len(svg) < 20_000
    ((name, together),) = draw_bands("b", dict(list(arms.items())[:3]), "reward/a", SCORE)
    assert name == "" and "lowest to highest seed" in together
    assert draw_bands("c", arms, "reward/none", SCORE) == ()


def test_differences_are_coloured_only_where_they_hold(finished_study):
    matrix = build_matrix(finished_study, read_scores(finished_study))
    found = [c for c in matrix.against_baseline if c.name == "signs/guard"]
    svg = draw_forest("f", found, reach(found), 0.05)
    verdicts = [c.verdict for c in found]
    assert set(verdicts) == {"worse", ""}
    assert "var(--bad)" in svg and "var(--quiet)" in svg and "var(--good)" not in svg
    assert "difference from start" in svg and "n=40" in svg


def test_a_study_says_how_to_repeat_it(finished_study, tmp_path):
    """With what it ran with; the command is read as the same study in another folder."""
    record_start(finished_study.folder / "environment.json")
    html = write_results(finished_study, {}).folder.joinpath("report.html").read_text()
    (finished_study.folder / "environment.json").unlink()
    assert "called as" in html and "versions" in html
    commands = json.loads((finished_study.folder / "report.json").read_text())["commands"]
    program, command, file, override = shlex.split(commands[-1])
    study = load_study_config(file, [override])
    assert (program, command) == ("blip3o-grpo", "ablate")
    assert study.study_dir == str(finished_study.folder.resolve()) + "-again"
    assert study.arms == read_study(finished_study.folder / "study.yaml").arms
