"""The report of a run: what it shows of finished, unfinished and broken runs."""

import json
import os
import re
import shutil
from html.parser import HTMLParser

import numpy as np
import pytest

from blip3o_grpo.configs import ConfigError
from blip3o_grpo.report import charts, write_report
from blip3o_grpo.report.build import duration
from blip3o_grpo.rollout import RolloutError
from blip3o_grpo.run.files import RunFileError


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
    assert not {"script", "iframe", "object", "b"} & set(found.tags)
    assert not re.search(r"url\((?!#)", page) and "@import" not in page
    assert builder.prompts[1] in found.text
    assert write_report(finished).read_text(encoding="utf-8") == page


def test_head_and_tables_show_the_numbers(page):
    text = Resources(page).text
    assert "24 of 24" in text and "3 prompts × 4" in text and "1 h 2 min" in text and "6.9 GB" in text
    change = re.escape("ocr 1 0.300 0.250 to 0.360, n=11 0.700 0.650 to 0.760, n=11 +0.400 +0.")
    assert re.search(change + r"39\d to \+0\.40\d, n=11", text)
    assert re.search(r"geneval 0\.5 .* no change shown", text)  # it rose on half of the prompts and fell on the others
    # An evaluation of an older version did not store which prompts have a tag: no interval, and no claim.
    tag = "single_object 0.200 0.100 to 0.300 0.500 0.400 to 0.600 +0.300 no interval : no change shown"
    assert tag in re.sub(" *: no", " : no", text)


def test_only_a_change_that_is_shown_has_a_colour(page):
    cells = re.findall(r'<td class="change">\s*<span class="(\w+)">([+-][\d.]+)</span>', page)
    assert cells[0] == ("up", "+0.400") and {colour for colour, _ in cells[1:]} == {"quiet"}
    assert page.count("no change shown") == len(cells) - 1


def test_the_rest_of_the_head(page):
    text = Resources(page).text
    assert "ocr – · geneval 0.75" in text
    assert "max_steps: 24" in text


def test_every_section_has_its_pictures_and_curves(page):
    found = Resources(page)
    assert found.tags.count("svg") == 7
    assert found.tags.count("img") == 2 * 3 * 4 + 3 * 3 * 2  # prompts before and after, steps x groups x best and worst
    for title in ("Reward: ocr", "Reward: geneval", "KL to the starting policy", "Mismatch", "Seconds per stage"):
        assert title in found.text
    assert [int(step) for step in re.findall(r"<h3>Step (\d+) ", page)] == [1, 13, 24]
    assert "held-out, 95 % interval" in page
    ids = re.findall(r' id="([^"]+)"', page)
    assert len(ids) == len(set(ids))


def test_large_pictures_are_shrunk_and_small_ones_kept(page):
    kinds = re.findall(r'src="data:image/(\w+);', page)
    assert kinds.count("jpeg") == 2 * 4
    assert len(page) < 400_000


def test_grids_stand_in_for_single_pictures(tmp_path, builder):
    page = write_report(builder.run(tmp_path / "run", images=False)).read_text()
    assert page.count('class="grid-image"') == 2
    assert "picture grid, after" in page


def test_run_that_just_started(tmp_path, builder):
    builder.config(tmp_path / "run")
    found = Resources(write_report(tmp_path / "run").read_text())
    assert "0 of 24" in found.text and "not finished" in found.text
    for sentence in ("No held-out evaluation", "No training step", "No held-out pictures", "No rollouts"):
        assert sentence in found.text
    assert not {"img", "svg"} & set(found.tags)


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
    assert text.count("Not evaluated yet.") == 3


def test_pipes_in_a_run_folder_are_refused_not_waited_for(tmp_path, builder):
    run = builder.run(tmp_path / "run")
    picture, step = run / "evaluations/before-images/000-0.png", run / "rollouts/step-000001/rollouts.jsonl"
    picture.unlink()
    os.mkfifo(picture)
    assert Resources(write_report(run).read_text()).text.count("this picture is missing") == 1
    for path, error in ((run / "evaluations/before.json", RunFileError), (step, RolloutError)):
        saved = path.read_bytes()
        path.unlink()
        os.mkfifo(path)
        with pytest.raises(error, match=f"{path.name}: .*not a regular file"):
            write_report(run)
        path.unlink()
        path.write_bytes(saved)


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


def test_report_goes_where_it_is_asked_to(finished, page, tmp_path):
    out = tmp_path / "new" / "x.html"
    assert write_report(finished, out) == out
    assert out.read_text(encoding="utf-8") == page


def test_chart_needs_a_number_and_escapes_labels():
    assert charts.draw("x", [charts.Line("a", [1, 2], [None, None])]) is None
    assert charts.draw("x", [charts.Line("a", [1, 2], [0, -1])], log=True) is None
    svg = charts.draw("x", [charts.Line("<i>$a$", [1, 2], [0.5, None])])
    assert "&lt;i&gt;$a$" in svg and "<i>" not in svg
    assert "#0101" not in svg and "var(--series-0)" in svg


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
