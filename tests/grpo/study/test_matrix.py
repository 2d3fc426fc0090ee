"""The matrix of a study with known effects, what is concluded from it, and its report in a real browser."""

import csv
import json
import re
import shutil

import pytest
import yaml
from typer.testing import CliRunner

from blip3o_grpo.cli import app
from blip3o_grpo.study.ablate import write_results
from blip3o_grpo.study.conclusions import conclude
from blip3o_grpo.study.matrix import as_csv, build_matrix, read_scores, verdict
from tests.browser import chromium

NOTHING = "<b>nothing</b>"


@pytest.fixture(scope="module")
def matrix(finished_study):
    return build_matrix(finished_study, read_scores(finished_study))


@pytest.fixture(scope="module")
def page(finished_study):
    write_results(finished_study, {})
    return finished_study.folder / "report.html"


def found(matrix, arm):
    return {f"{c.suite}/{c.reward}": c for c in matrix.against_baseline if c.arm == arm}


def test_every_arm_is_measured_by_every_reward_that_applies(matrix):
    assert [column.name for column in matrix.columns] == [
        "signs/ocr", "signs/guard", "shapes/geneval", "shapes/guard"
    ]  # fmt: skip
    assert matrix.arms == ["start", "text", "both", NOTHING]
    assert len(matrix.cells) == 16 and len(matrix.against_baseline) == 12 and len(matrix.between_arms) == 12
    cell = matrix.cell("both", matrix.columns[1])
    assert (cell.weight, set(cell.seeds)) == (0.5, {0, 1})
    assert cell.mean == pytest.approx(sum(cell.seeds.values()) / 2)
    assert cell.low < cell.mean < cell.high


def test_known_effects_are_found_with_their_intervals(matrix):
    text, both, nothing = (found(matrix, arm) for arm in ("text", "both", NOTHING))
    assert {name: c.verdict for name, c in text.items()} == {
        "signs/ocr": "better", "signs/guard": "worse", "shapes/geneval": "", "shapes/guard": "worse"
    }  # fmt: skip
    assert {name: c.verdict for name, c in both.items() if c.verdict} == {
        "signs/ocr": "better", "shapes/geneval": "better"
    }  # fmt: skip
    assert not any(c.verdict for c in nothing.values())
    for comparison, effect in ((text["signs/ocr"], 0.3), (text["signs/guard"], -0.2), (both["shapes/geneval"], 0.25)):
        assert comparison.low < effect < comparison.high
        assert comparison.high - comparison.low < 0.15  # pairing takes the prompts' difficulty out
        assert comparison.p < comparison.p_adjusted < 0.05
    whole = next(c for c in matrix.cells if (c.arm, c.suite, c.reward) == ("text", "signs", "ocr"))
    assert whole.high - whole.low > 1.5 * (text["signs/ocr"].high - text["signs/ocr"].low)


def test_a_verdict_needs_the_correction_and_every_seed():
    assert verdict(0.2, 0.01, [0.1, 0.3]) == "better"
    assert verdict(-0.2, 0.01, [-0.1, -0.3]) == "worse"
    assert verdict(0.2, 0.05, [0.1, 0.3]) == ""
    assert verdict(0.2, 0.01, [0.5, -0.1]) == ""


def test_conclusions_name_the_safe_arm_and_the_hacked_reward(matrix, finished_study):
    conclusions = conclude(matrix, ["text", "both", NOTHING], finished_study.goals)
    assert conclusions.recommended == "both" and conclusions.candidates == ["both"]
    text = " ".join(conclusions.recommendation)
    assert text.startswith("Train with both. What counts are the goals shapes/geneval (margin 0.05).")
    assert "both is better than start in shapes/geneval +0.2" in text and "n=30" in text
    assert "Not text: " in text and f"Not {NOTHING}: " in text
    by_arm = {finding.arm: finding for finding in conclusions.findings}
    assert "ocr was trained on and rose while signs/guard and shapes/guard fell" in by_arm["text"].suspicious
    assert not by_arm["both"].suspicious
    assert by_arm[NOTHING].text.startswith("no difference shown in signs/ocr, ")


def test_without_a_safe_arm_nothing_is_recommended(finished_study):
    scores = read_scores(finished_study)
    del scores["both"]
    conclusions = conclude(build_matrix(finished_study, scores), ["text", "both", NOTHING], finished_study.goals)
    assert conclusions.recommendation[-1] == "Not compared, because no run of it has finished: both."
    assert conclusions.recommended is None and conclusions.candidates == []
    assert conclusions.recommendation[0].startswith("Nothing is recommended. Against start, in the goals shapes/gen")


def test_what_is_recommended_says_what_it_does_not_rest_on(finished_study):
    arms = ["text", "both", NOTHING]
    scores = read_scores(finished_study)
    scores[NOTHING] = dict(scores["both"])
    conclusions = conclude(build_matrix(finished_study, scores), arms, finished_study.goals)
    advice = conclusions.recommendation
    assert conclusions.recommended is None and conclusions.candidates == ["both", NOTHING]
    assert advice[0].startswith(f"Train with both or {NOTHING}.")
    assert any(f"Between both and {NOTHING} no difference was shown" in sentence for sentence in advice)
    del scores[NOTHING][1]
    advice = conclude(build_matrix(finished_study, scores), arms, finished_study.goals).recommendation
    assert advice[-1] == f"Only one run has finished of {NOTHING}: how much seeds differ is taken from the other arms."
    for runs in scores.values():
        runs.pop(1, None)
    advice = conclude(build_matrix(finished_study, scores), arms, finished_study.goals).recommendation
    assert advice[-1].startswith("Every arm was trained with one seed only")


def test_an_arm_as_the_baseline_and_seeds_that_are_missing(finished_study):
    plan = type(finished_study)(
        finished_study.study.model_copy(update={"baseline": "text"}),
        finished_study.base,
        finished_study.suites,
        finished_study.trials,
        finished_study.goals,
    )
    scores = read_scores(plan)
    del scores["both"][0]
    matrix = build_matrix(plan, scores)
    assert found(matrix, "both")["shapes/geneval"].verdict == "better"
    assert set(found(matrix, "both")["shapes/geneval"].seeds) == {1}  # compared on the seed that both have
    assert found(matrix, "both")["signs/ocr"].difference < 0
    del scores["text"]
    assert build_matrix(plan, scores).baseline == "start"
    assert build_matrix(plan, {"start": {}}) is None


def test_results_as_json_and_csv(page, matrix):
    summary = json.loads((page.parent / "study.json").read_text())
    assert set(summary["trials"].values()) == {"finished"} and len(summary["trials"]) == 6
    assert summary["conclusions"]["recommended"] == "both"
    assert summary["goals"] == [{"suite": "shapes", "reward": "geneval", "margin": 0.05, "target": None}]
    rows = list(csv.DictReader((page.parent / "matrix.csv").open()))
    assert len(rows) == 16 and {"arm", "suite", "reward", "mean", "low", "high", "seed_0", "seed_1"} <= rows[0].keys()
    assert float(rows[0]["mean"]) == pytest.approx(matrix.cells[0].mean)
    assert len(list(csv.DictReader((page.parent / "comparisons.csv").open()))) == 24
    assert as_csv([]) == ""


def test_the_page_escapes_names_and_marks_only_what_holds(page):
    html = page.read_text()
    assert "<b>nothing" not in html and "&lt;b&gt;nothing" in html
    table = html[html.index('class="matrix') : html.index("</table>")]
    assert table.count("▲ better") == 3 and table.count("▼ worse") == 2
    assert table.count("no difference shown") == 12 - 5
    assert "a sign of reward hacking" in html
    assert "<strong>text/seed-0</strong>, step 24: heldout/guard fell from" in html
    assert not re.search(r"url\((?!#)", html) and html.count("<script") == 1


def test_a_study_without_finished_trials_has_a_page(finished_study, tmp_path):
    study = finished_study.study.model_copy(update={"study_dir": str(tmp_path / "new")})
    config = finished_study.trials[0].config.model_copy(update={"run_dir": str(tmp_path / "new/arms/text/seed-0")})
    trial = type(finished_study.trials[0])("text", 0, config)
    plan = type(finished_study)(study, finished_study.base, finished_study.suites, [trial], finished_study.goals)
    result = write_results(plan, {"text/seed-0": "error: <it> broke"})
    assert result.matrix is None
    html = (tmp_path / "new/report.html").read_text()
    assert "nothing to compare" in html and "error: &lt;it&gt; broke" in html
    assert json.loads((tmp_path / "new/study.json").read_text())["trials"] == {"text/seed-0": "error: <it> broke"}


def test_an_interrupted_study_has_a_report_of_what_is_there(finished_study, page, tmp_path):
    """Moved, with an unfinished trial, and written before studies had goals; nothing in the folder is changed."""
    folder = tmp_path / "moved"
    shutil.copytree(finished_study.folder, folder)
    third = folder / "arms/both/seed-1"
    (third / "summary.json").unlink()
    (third / "evaluations/after.json").unlink()
    (folder / "report.html").unlink()
    values = yaml.safe_load((folder / "study.yaml").read_text())
    del values["goals"]
    (folder / "study.yaml").write_text(yaml.safe_dump(values))
    kept = sorted(path for path in folder.rglob("*"))
    result = CliRunner().invoke(app, ["report", str(folder), "--out", str(tmp_path / "page.html")])
    assert result.exit_code == 0, result.output
    assert sorted(path for path in folder.rglob("*")) == kept
    text = " ".join(re.sub(r"<[^>]*>", " ", (tmp_path / "page.html").read_text()).split())
    assert "3 of 4 finished" in text and "both/seed-1 : 24 of 24 steps, interrupted; it is not compared below" in text
    assert "the goals shapes/geneval (margin 0.05)" in text and "Only one run has finished of both" in text
    for trial in ("text/seed-0", "text/seed-1", "both/seed-0"):
        (folder / "arms" / trial / "summary.json").unlink()
    assert CliRunner().invoke(app, ["report", str(folder)]).exit_code == 0
    assert "nothing to compare" in (folder / "report.html").read_text()
    (folder / "study.json").write_text(json.dumps({"trials": {"text/seed-0": "error: no luck", "gone/seed-0": "x"}}))
    assert CliRunner().invoke(app, ["report", str(folder)]).exit_code == 0
    assert "error: no luck" in (folder / "report.html").read_text()


@pytest.mark.parametrize(
    ("file", "content", "says"),
    [
        ("study.yaml", "not: a study", "study.yaml is not the configuration of a study"),
        ("base.yaml", None, "base.yaml: no such file"),
        ("heldout.jsonl", None, "heldout.jsonl: no such prompt file"),
    ],
)
def test_a_damaged_study_folder_is_one_line(finished_study, page, tmp_path, file, content, says):
    folder = tmp_path / "study"
    shutil.copytree(finished_study.folder, folder)
    if content is None:
        (folder / file).unlink()
    else:
        (folder / file).write_text(content)
    result = CliRunner().invoke(app, ["report", str(folder)])
    assert result.exit_code == 2 and says in result.stderr, result.output
    assert len(result.stderr.strip().splitlines()) == 1


LOOK = """({
  width: document.documentElement.scrollWidth,
  body: document.body.getBoundingClientRect().width,
  images: [...document.images].map(image => image.naturalWidth),
  charts: [...document.querySelectorAll("figure svg")].map(svg => svg.getBoundingClientRect().width),
  scripts: document.scripts.length,
})"""


def test_browser_shows_it_without_errors_and_without_asking_anyone(page, tmp_path):
    with chromium(tmp_path / "profile") as browser:
        for width in (1280, 375):
            for scheme in ("light", "dark"):
                browser.open(page.as_uri(), width, scheme)
                look = browser.evaluate(LOOK)
                assert look["width"] <= width
                assert len(look["images"]) == 2 * 4 * 2 and all(look["images"])  # prompts x arms x images
                # 4 measures, 3 rewards twice, KL; two statistics of the images are folded
                assert len(look["charts"]) == 4 + 7 + 2 and min(look["charts"][:11]) > 280
                assert look["scripts"] == 1 and look["width"] == look["body"]
                assert not browser.named("Log.entryAdded", "Runtime.exceptionThrown", "Runtime.consoleAPICalled")
                requests = [event["request"]["url"] for event in browser.named("Network.requestWillBeSent")]
                assert [request for request in requests if not request.startswith("data:")] == [page.as_uri()]


def test_a_handful_of_prompts_has_no_intervals_and_no_verdicts(finished_study, tmp_path):
    plan = type(finished_study)(
        finished_study.study.model_copy(update={"study_dir": str(tmp_path)}),
        finished_study.base,
        {name: prompts[:3] for name, prompts in finished_study.suites.items()},
        finished_study.trials,
        finished_study.goals,
    )
    result = write_results(plan, {})
    assert not any(c.verdict for c in result.matrix.against_baseline)
    summary = json.loads((tmp_path / "study.json").read_text(), parse_constant=pytest.fail)
    assert summary["matrix"][0]["low"] is None
    html = (tmp_path / "report.html").read_text()
    assert "no interval (n=3)" in html and "nan" not in html.split("<svg")[0]
