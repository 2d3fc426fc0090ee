"""The report of a run: what it shows of finished, unfinished and broken runs."""

import base64
import hashlib
import json
import os
import re
import shutil
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from blip3o_grpo.cli import app
from blip3o_grpo.configs import ConfigError, dump_config, load_run_config
from blip3o_grpo.report import charts, write_report
from blip3o_grpo.report.axes import Axis
from blip3o_grpo.report.build import duration
from blip3o_grpo.report.curves import Curves
from blip3o_grpo.report.reading import read_run
from blip3o_grpo.run.folder import RunFolder
from blip3o_grpo.run.locks import hold


class Resources(HTMLParser):
    """Collects what a page would fetch or run, and its text with single spaces."""

    def __init__(self, page):
        super().__init__()
        self.sources, self.tags, self.text = [], [], ""
        self.feed(page)
        self.text = re.sub(r"\s+", " ", self.text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.text += " "
        self.sources += [value for name, value in attrs if name in ("src", "href", "xlink:href", "srcset", "action")]

    def handle_data(self, data):
        self.text += data


def test_page_stands_alone_and_escapes_prompts(page, finished, builder):
    found = Resources(page)
    assert found.sources
    assert all(source.startswith(("data:", "#")) for source in found.sources)
    assert not {"iframe", "object"} & set(found.tags)
    assert found.tags.count("script") == 1  # the viewer, which the page's policy knows by its hash
    script = page[page.index("<script>") + len("<script>") : page.index("</script>")]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in page and "<b>recipe" not in page
    assert not re.search(r"url\((?!#)", page) and "@import" not in page
    assert builder.prompts[1] in found.text


def test_head_and_tables_show_the_numbers(page):
    text = Resources(page[: page.index('id="curves"')]).text
    assert "24 of 24" in text and "3 prompts × 4" in text and "1 h 2 min" in text and "6.9 GB" in text
    change = re.escape("ocr 1 0.300 0.250 to 0.360, n=11 0.700 0.650 to 0.760, n=11 +0.400 +0.")
    assert re.search(change + r"39\d to \+0\.40\d, n=11", text)
    assert re.search(r"geneval 0\.5 .* no change shown", text)  # it rose on half of the prompts and fell on the others
    # An evaluation of an older version did not store which prompts have a tag: no interval, and no claim.
    tag = "single_object 0.200 0.100 to 0.300 0.500 0.400 to 0.600 +0.300 no interval : no change shown"
    assert tag in re.sub(" *: no", " : no", text)


def test_only_a_change_that_is_shown_has_a_colour(page):
    cells = re.findall(r'class="change"><span>\s*<span class="(\w+)">([+-][\d.]+)</span>', page)
    assert cells[0] == ("up", "+0.400") and {colour for colour, _ in cells[1:]} == {"same"}
    assert page.count("no change shown") == len(cells) - 1


def test_the_rest_of_the_head(page):
    text = Resources(page).text
    assert "ocr – · geneval 0.75" in text
    assert "max_steps: 24" in text


def test_every_section_has_its_pictures_and_curves(page):
    found = Resources(page)
    assert found.tags.count("svg") == 8
    # prompts before and after, the best and the worst of three prompts, steps x groups x best and worst
    assert found.tags.count("img") == 2 * 3 * 4 + 2 * 3 + 3 * 3 * 2
    for title in ("Reward: ocr", "Reward: geneval", "KL to the starting policy", "Mismatch", "Seconds per stage"):
        assert title in found.text
    assert [int(step) for step in re.findall(r"<h3>Step (\d+) ", page)] == [1, 13, 24]
    assert "held-out, 95 % interval" in page
    assert "Band: 95 % interval over a step&#39;s n=3 prompts." in page and "interval/reward" not in page
    ids = re.findall(r' id="([^"]+)"', page)
    assert len(ids) == len(set(ids))


def test_large_pictures_are_shrunk_and_small_ones_kept(page):
    kinds = re.findall(r'src="data:image/(\w+);', page)
    assert kinds.count("jpeg") == 2 * 4
    assert len(page) < 400_000


def test_grids_stand_in_for_single_pictures(tmp_path, builder):
    page = write_report(builder.run(tmp_path / "run", images=False)).read_text()
    assert page.count('class="grid-image"') == 2 and "Both pictures of a pair" not in page
    assert "picture grid, after" in page


def test_run_that_just_started(tmp_path, builder):
    builder.config(tmp_path / "run")
    found = Resources(write_report(tmp_path / "run").read_text())
    assert "0 of 24" in found.text and "not finished" in found.text
    for sentence in ("No held-out evaluation", "No training step", "No held-out pictures", "No rollouts"):
        assert sentence in found.text
    assert not {"img", "svg"} & set(found.tags)
    assert "were not recorded" in found.text


def test_interrupted_run_shows_the_latest_evaluation_and_what_is_missing(tmp_path, builder):
    run = builder.run(tmp_path / "run")
    for path in ("summary.json", "evaluations/after.json", "evaluations/before-images/000-0.png"):
        (run / path).unlink()
    (run / "evaluations/before-images/000-1.png").write_bytes(b"\x89PNG cut off")
    shutil.rmtree(run / "evaluations/step-12-images")
    lines = (run / "metrics.jsonl").read_text().splitlines()
    (run / "metrics.jsonl").write_text("\n".join([*lines[:10], lines[10][:40]]))
    text = Resources(write_report(run).read_text()).text
    assert "10 of 24" in text
    assert "step-12" in text and "0.500" in text
    assert text.count("this picture is missing") == 2
    assert text.count("not drawn yet") == 3 * 4
    assert "not finished and not running" in text
    numbers = json.loads((run / "report.json").read_text())
    assert numbers["state"] == "unfinished" and numbers["evaluation"] == "step-12"


def test_pipes_in_a_run_folder_are_left_out_not_waited_for(tmp_path, builder):
    run = builder.run(tmp_path / "run")
    for file in (
        "evaluations/before-images/000-0.png",
        "evaluations/before.json",
        "rollouts/step-000001/rollouts.jsonl",
        "metrics.jsonl",
        "environment.json",
    ):
        (run / file).unlink()
        os.mkfifo(run / file)
    told = []
    text = Resources(write_report(run, warn=told.append).read_text()).text
    assert text.count("this picture is missing") == 1
    assert len(told) == 4 and all("not a regular file" in sentence and sentence in text for sentence in told)


def test_a_damaged_file_costs_one_sentence_and_the_rest_is_shown(tmp_path, builder):
    run = builder.run(tmp_path / "run")
    damage = {
        "evaluations/after.json": ("{", "after.json"),
        "summary.json": ("[]", "summary.json"),
        "environment.json": ('{"starts": [{"step": 1}]}', "'starts.0.started'"),
        "rollouts/step-000024/rollouts.jsonl": ("nonsense", "this recorded step is left out"),
        "evaluations/step-12-images/index.jsonl": ('{"prompt": 1}\n', "index.jsonl:1"),
    }
    for file, (content, _) in damage.items():
        (run / file).write_text(content)
    result = CliRunner().invoke(app, ["report", str(run)])
    assert result.exit_code == 0, result.output
    text = Resources((run / "report.html").read_text()).text
    assert len(result.stderr.splitlines()) == len(json.loads((run / "report.json").read_text())["damaged"]) == 5
    for _, says in damage.values():
        assert any(line.startswith("warning: ") and says in line for line in result.stderr.splitlines())
        assert says in text
    for rest in ("step-12", "0.500", "its summary is damaged", "were not recorded", "Step 23 ", "not drawn yet"):
        assert rest in text


def test_damaged_lines_of_metrics_are_left_out_and_counted(tmp_path, builder):
    run = builder.run(tmp_path / "run")
    lines = (run / "metrics.jsonl").read_text().splitlines()
    lines[4], lines[9] = "{", '{"step": 10, "reward/ocr": "high"}'
    (run / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    told = []
    text = Resources(write_report(run, warn=told.append).read_text()).text
    assert len(told) == 1 and "metrics.jsonl:5" in told[0] and told[0].endswith("and 1 more; left out: 2 steps")
    assert "24 of 24" in text


def test_a_run_at_work_is_told_from_one_that_was_interrupted(tmp_path, builder):
    run = builder.run(tmp_path / "run", images=False)
    (run / "summary.json").unlink()
    with hold(run / ".lock"):
        assert "still training" in write_report(run).read_text()
    assert "not finished and not running" in write_report(run).read_text()


def test_what_it_ran_with_and_how_to_repeat_it(page, finished):
    text = Resources(page[page.index('id="repeat"') :]).text
    assert "git checkout 0123456789abcdef0123456789abcdef01234567" in text
    assert f"blip3o-grpo train {finished}/config.yaml run_dir={finished}-again" in text
    assert "blip3o-grpo train 'my <b>recipe</b>.yaml' trainer.max_steps=24 in /home/me" in text
    assert "torch 2.13" in text and "Started again 2026-11-28 11:00:00 UTC, after step 12" in text
    changed = text[text.index("versions that changed") :]
    assert "torch 2.14" in changed and "trl" not in changed[: changed.index("Configuration")]
    assert "nothing changed" in text and "1 tracked file changed since" in text
    assert "2 cores, 23.5 GiB memory, NVIDIA H200 (140.4 GiB)" in text
    assert "resumed after step 12" in " ".join(Resources(page).text.split()) and ">resumed</text>" in page


def test_the_numbers_of_the_page_for_programs(page, finished):
    numbers = json.loads((finished / "report.json").read_text(), parse_constant=pytest.fail)
    assert numbers["state"] == "finished" and numbers["steps"] == 24
    found = numbers["heldout"]["ocr"]
    assert found["before"] == {"mean": 0.3, "low": 0.25, "high": 0.36, "n": 11}
    assert found["change"]["low"] < found["change"]["mean"] < found["change"]["high"] and found["change"]["n"] == 11
    assert numbers["tags"]["geneval"]["single_object"]["change"]["low"] is None
    assert [start["step"] for start in numbers["environment"]] == [0, 12]


def test_the_same_folder_gives_the_same_page_wherever_it_is_asked_for(finished, page, tmp_path):
    out = tmp_path / "new" / "x.html"
    assert write_report(finished, out) == out
    assert out.read_text(encoding="utf-8") == page and (out.parent / "x.json").is_file()


def test_nothing_else_is_overwritten(finished, tmp_path):
    """The numbers go beside the page, and a file of that name which is no report's stays as it is."""
    (tmp_path / "mine.json").write_text('{"kind": "something else"}')
    for out, says in (
        (tmp_path / "mine.html", "mine.json"),
        (tmp_path, "an .html file"),
        (finished / "config.yaml", "an .html file"),
        (finished / "summary.html", "summary.json"),
    ):
        with pytest.raises(ConfigError, match=says):
            write_report(finished, out)
    assert (tmp_path / "mine.json").read_text() == '{"kind": "something else"}'
    assert not (tmp_path / "mine.html").exists()


def test_best_and_worst_of_the_run_with_their_rewards(tmp_path, builder):
    """The highest and the lowest weighted sum, one per prompt, of equals the latest; what has no score is neither."""
    run = builder.run(tmp_path / "run", images=False)
    files = sorted(run.glob("rollouts/*/rollouts.jsonl"))
    for file, scores in ((files[3], (0.2, 0.9)), (files[7], (1.0, 0.4)), (files[9], (None, None))):
        lines = [json.loads(line) for line in file.read_text().splitlines()]
        for rollout, score in zip(lines[0]["rollouts"], scores, strict=True):
            rollout["rewards"] = {"ocr": score, "geneval": score}
        lines[0]["best"]["member"], lines[0]["worst"]["member"] = (0, 1) if scores[0] == 1.0 else (1, 0)
        file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    html = write_report(run).read_text()
    text = Resources(html[html.index('id="extremes"') : html.index('id="rollouts"')]).text
    best, worst = text.split(" Worst ")
    assert "best, step 8 total 1.50" in best and "Step 8. Total 1.50; its group's mean is 1.05" in best
    assert "ocr 1.000 × 1 geneval 1.000 × 0.5" in best
    assert best.count("best, step 24 total 1.00") == 2 and "step 10 " not in text
    assert worst.count("worst, step 24 total 0.00") == 3


def test_hundreds_of_large_pictures_make_a_page_of_bounded_size(tmp_path, builder, monkeypatch):
    """More pictures are shown smaller; beyond a bound of bytes, and of prompts, they are left out, and that is said."""
    from blip3o_grpo.report import pictures

    run = builder.run(tmp_path / "run")
    folder = run / "evaluations/after-images"
    noise = np.random.default_rng(0).integers(0, 255, (512, 512, 3), np.uint8)
    Image.fromarray(noise).save(folder / "noise.png")
    lines = [
        {"prompt_id": f"p{i}", "prompt": f"prompt {i}", "images": ["noise.png"] * 9, "rewards": {}} for i in range(40)
    ]
    (folder / "index.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (run / "evaluations/before-images/index.jsonl").unlink()
    monkeypatch.setattr(pictures, "PAGE_BYTES", 2**20)
    page = write_report(run).read_text()
    assert len(page) < 2**20 + 400_000
    assert "left out: the page would be too large" in page
    assert "The pictures of 8 more prompts are in the run folder" in page
    assert "1 more pictures of this prompt" in page


def test_before_evaluation_only(tmp_path, builder):
    builder.config(tmp_path / "run")
    builder.evaluation(tmp_path / "run", "before", 0)
    text = Resources(write_report(tmp_path / "run").read_text()).text
    assert "There is no evaluation after the first one yet." in text
    assert "ocr 1 0.300 0.250 to 0.360, n=11 – –" in text


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "is not a run folder"), ("a: [", "not valid YAML"), ("strategy: joint\n", "is not the configuration of")],
)
def test_other_folders_are_refused(tmp_path, content, message):
    if content is not None:
        (tmp_path / "config.yaml").write_text(content)
    with pytest.raises(ConfigError, match=message):
        write_report(tmp_path)
    assert not (tmp_path / "report.html").exists()


def test_chart_needs_a_number_and_escapes_labels():
    assert charts.draw("x", [charts.Line("a", [1, 2], [None, None])]) is None
    assert charts.draw("x", [charts.Line("a", [1, 2], [0, -1])], y=Axis("a", log=True)) is None
    assert charts.draw("x", [charts.Line("a", [1, 2], [0, -1])], y=Axis("a", zero=True)) is not None
    svg = charts.draw("x", [charts.Line("<i>$a$", [1, 2], [0.5, None])])
    assert "&lt;i&gt;$a$" in svg and "<i>" not in svg
    assert "#0101" not in svg and "var(--series-0)" in svg


def test_steps_on_the_same_images_leave_no_gaps_in_the_curves_of_new_ones(tmp_path, builder):
    """A line between every other step would not be drawn at all."""
    run = builder.run(tmp_path / "run", images=False)
    config = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(config.replace("num_iterations: 1", "num_iterations: 2"))
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    kept = [{n: v for n, v in line.items() if line["step"] % 2 or "reward" not in n} for line in lines]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in kept))
    line = Curves(read_run(RunFolder(run)))._line("reward/mean", "", 1)
    assert line.steps == list(range(1, 25, 2)) and None not in line.values
    assert "steps on the same images" in write_report(run).read_text()


def test_running_mean_leaves_gaps_out():
    values = np.array([1.0, np.nan, 3.0, 5.0, np.nan])
    np.testing.assert_allclose(charts.running_mean(values, 1), values)
    np.testing.assert_allclose(charts.running_mean(values, 3), [1, 2, 4, 4, 5])
    assert np.isnan(charts.running_mean(np.array([np.nan, np.nan]), 3)).all()


@pytest.mark.parametrize(("seconds", "text"), [(44.6, "45 s"), (711, "11 min 51 s"), (12000, "3 h 20 min")])
def test_duration(seconds, text):
    assert duration(seconds) == text


def test_warnings_and_image_signals_show_where_there_are_any(builder, page, tmp_path):
    assert 'id="warnings"' not in page and "What the images look like" not in page
    run = builder.run(tmp_path / "run", images=False)
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        line["image/saturation"] = 0.4 - 0.015 * line["step"]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    html = write_report(run).read_text(encoding="utf-8")
    text = Resources(html[html.index('id="warnings"') :]).text
    assert re.search(r"Step \d+: image/saturation went from 0\.355 to 0\.\d+ \(-\d+%\), more than", text)
    assert "What the images look like" in html


def test_gold_that_fell_is_a_warning_and_a_rolled_back_run_says_of_which_step_its_result_is(builder, tmp_path):
    run = builder.run(tmp_path / "run", images=False)
    config = load_run_config(
        run / "config.yaml", ["rewards.1.weight=0", "guards.gold=[geneval]", "evaluation.every_steps=12"]
    )
    (run / "config.yaml").write_text(dump_config(config))
    assert "fell from" not in write_report(run).read_text(encoding="utf-8")
    file = run / "evaluations" / "step-12.json"
    values = json.loads(file.read_text())
    for index, row in enumerate(values["per_prompt"].values()):
        row |= {"geneval": 0.01 * (index % 2), "ocr": 0.9}
    file.write_text(json.dumps(values))
    (run / "rolled_back.json").write_text('{"step": 12, "after": 24, "reason": "gold fell"}')
    page = write_report(run)
    text = Resources(page.read_text(encoding="utf-8")).text
    assert re.search(
        r"Step 12: gold reward 'geneval' fell from 0\.150 at the start to 0\.0\d\d .*\(guards\.gold\)", text
    )
    assert "of step 12: rolled back after step 24" in text
    assert any(
        "gold reward 'geneval' fell" in line for line in json.loads(page.with_suffix(".json").read_text())["warnings"]
    )


def test_held_out_rewards_are_told_against_what_they_cost(tmp_path, builder):
    """24 steps of 12 images; a run that counted its own images is believed."""
    run = builder.run(tmp_path / "run", images=False)
    page, numbers = write_report(run), json.loads((run / "report.json").read_text())
    assert "Held-out rewards against images" in page.read_text() and "288 images" in page.read_text()
    assert [(row["step"], row["images"]) for row in numbers["course"]] == [(0, 0), (12, 144), (24, 288)]
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    minutes = sum(line["time/step"] for line in lines[:12]) / 60
    assert numbers["course"][1]["minutes"] == pytest.approx(minutes)
    assert numbers["course"][2]["means"]["ocr"] == pytest.approx(0.7)
    (run / "metrics.jsonl").write_text(
        "".join(json.dumps(line | {"images/total": 20 * line["step"]}) + "\n" for line in lines)
    )
    write_report(run)
    numbers = json.loads((run / "report.json").read_text())
    assert [row["images"] for row in numbers["course"]] == [0, 240, 480]
