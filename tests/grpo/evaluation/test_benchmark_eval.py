"""`eval` of suites with official data: mistakes in one line before anything loads, tables, and one whole comparison."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

import blip3o_grpo as bg
import blip3o_grpo.cluster
from blip3o_grpo.cli import app
from blip3o_grpo.evaluation.benchmark_result import BenchmarkReport, BenchmarkResult, Subset, compare, load_result
from blip3o_grpo.evaluation.benchmark_tables import benchmark_tables
from blip3o_grpo.policies import BLIP3oNext
from blip3o_grpo.rewards.benchmarks import digest
from blip3o_grpo.rewards.dpg.reward import ASKED
from blip3o_grpo.rewards.judge.usage import Usage
from blip3o_grpo.rewards.suites import ReadingSuite, available_suites, find_any_suite, find_suite
from blip3o_grpo.rewards.wise.records import RANGES, VERIFIED_RANGES
from tests.rewards.dpg.test_questions import HEADER
from tests.rewards.dpg.test_scoring import PROMPTS
from tests.rewards.judge.server import TOKEN, judging
from tests.rewards.wise.test_wise import PROMPTS as WISE_PROMPTS
from tests.rewards.wise.test_wise import entry

ROWS = "".join(
    f"s{number},a {colour} star,,1,0,entity,whole,entity - whole (star),Is there a star?\n"
    f's{number},a {colour} star,,2,1,attribute,color,"attribute - color (star, {colour})",Is it {colour}?\n'
    for number, colour in enumerate(("red", "blue", "green", "yellow"))
)


@pytest.fixture
def nothing_loads(monkeypatch):
    """Any attempt to load weights or to start Ray fails the test."""

    def refuse(*_, **__):
        pytest.fail("a model was loaded or Ray was started before the input was checked")

    monkeypatch.setattr(BLIP3oNext, "from_pretrained", refuse)
    monkeypatch.setattr(blip3o_grpo.cluster.ray, "init", refuse)


@pytest.fixture
def files(tmp_path, monkeypatch):
    """A question file and a judge of this machine's port 9, where nobody is, in the working folder."""
    monkeypatch.chdir(tmp_path)
    Path("dpg.csv").write_text(f"{HEADER}\n{ROWS}")
    write_judge("http://127.0.0.1:9/v1")
    for name, change in (("full", {}), ("other", {"judge": {"model": "n", "version": "1"}})):
        Path(f"{name}.json").write_text(json.dumps(dpg_result(**change).to_dict()))
    return tmp_path


def write_judge(url, **more):
    values = {"url": url, "model": "tiny-judge", "version": "1", "patience_s": 0.05, "cache": "answers", **more}
    Path("judge.yaml").write_text(json.dumps(values))  # which is YAML too


def dpg_result(policy="runs/a", prompts=PROMPTS, **changes):
    protocol = {"skip_first_row": False, "category_images": "all"}
    values = {
        "suite": "dpg",
        "policy": policy,
        "judge": {"model": "tiny-judge", "version": "1"},
        "data": {"file": "dpg.csv", "digest": "abc", "prompts": 1065, "official": 1065},
        "protocol": protocol,
        "subset": None,
        "images_per_prompt": 4,
        "prompts": [prompt.id for prompt in prompts],
        "columns": changes.get("columns") or find_suite("dpg").benchmark.columns(prompts, protocol),
        "usage": Usage(answers=14, calls=14),
        "notes": [],
    }
    return BenchmarkResult(**{**values, **changes})


def wise_result(prompts=WISE_PROMPTS, **changes):
    columns = find_suite("wise").benchmark.columns(prompts, {})
    return dpg_result(suite="wise", prompts=prompts, columns=columns, protocol={}, images_per_prompt=1, **changes)


DPG = ["--suite", "dpg", "--data", "dpg.csv", "--judge", "judge.yaml"]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (
            ["tiny", "--suite", "dpg"],
            "suite 'dpg' asks the official questions: --data names the official dpg_bench.csv",
        ),
        (["tiny", "--suite", "dpg", "--data", "dpg.csv"], "suite 'dpg' needs a judge: --judge names a YAML file"),
        (["tiny", "--suite", "dpg", "--data", "no.csv"], "no.csv: no such file; --data names"),
        (["tiny", "--suite", "dpg", "--data", "judge.yaml"], "judge.yaml: lacks the column 'item_id'"),
        (["tiny", *DPG[:4], "--judge", "no.yaml"], "no.yaml: no such file; --judge names"),
        (
            ["tiny", *DPG[:4], "--judge", "dpg.csv"],
            "dpg.csv: (not valid YAML|must be a mapping)|dpg.csv must be a mapping",
        ),
        (["tiny", *DPG], "127.0.0.1:9/v1/models did not answer: connection refused .*; start the judge's server"),
        (["tiny", *DPG, "--limit", "5"], "--limit 5: the data hold 4 prompts"),
        (["tiny", *DPG, "--suite-option", "skip=true"], "unknown option 'skip'"),
        (["tiny", *DPG, "--suite-option", "skip"], "--suite-option skip: expected NAME=VALUE"),
        (["tiny", *DPG, "--suite-option", "a=1", "--suite-option", "a=2"], "a is given twice"),
        (
            ["tiny", *DPG, "--num-prompts", "2"],
            "--num-prompts: suite 'dpg' has prompts of its own; it takes --data and",
        ),
        (["tiny", *DPG, "--prompts", "dpg.csv"], "--prompts: suite 'dpg' has prompts of its own"),
        (
            ["tiny", "--suite", "ocr", "--data", "dpg.csv"],
            "--data: suite 'ocr' has no official data; it takes --prompts",
        ),
        (["tiny", "--judge", "judge.yaml"], "--judge: suite 'ocr' has no official data"),
        (["tiny", *DPG, "--limit-seed", "0"], "--limit-seed 0: nothing is drawn without --limit"),
        (["tiny", "--suite", "geneval", "--limit-seed", "3"], "--limit-seed 3: nothing is drawn without --limit"),
        (["tiny", "--suite", "text", "--limit-seed", "3"], "--limit-seed 3: nothing is drawn without --limit"),
        (["tiny", "--suite", "geneval", "--limit", "9999"], "--limit 9999: the data hold [0-9]+ prompts"),
        (["tiny", "--suite", "ocr", "--limit", "2", "--num-prompts", "2"], "--limit draws them at random; give one"),
        (
            ["full.json", "--suite", "geneval", "--compare", "full.json"],
            "full.json: suite 'geneval' measures policies and takes no saved result, .*.dpg, longtext, wise, wise-ver",
        ),
        (["full.json"], "full.json: suite 'ocr' measures policies and takes no saved"),
        (["tiny", "--suite", "text", "--compare", "full.json"], "full.json: suite 'text' measures policies and takes"),
        (["full.json", "--suite", "understanding"], "full.json: suite 'understanding' measures policies and takes"),
        (["tiny", "--suite", "dgp"], "unknown suite 'dgp'; did you mean 'dpg'?"),
        (["tiny", *DPG, "--images", "5", "--results", "r.txt"], "DPG-Bench's files hold 4 images of a prompt, not 5"),
        (["tiny", *DPG, "--results", "r.csv"], "r.csv: these results are written as .txt, not '.csv'"),
        (["tiny", *DPG, "--out", "g.txt"], "g.txt: pictures are written as a .png file"),
        (["nowhere", *DPG], "nowhere"),
        (["tiny", *DPG, "--compare", "full.json"], "different data, dpg.csv and dpg.csv"),
        (["tiny", *DPG, "--compare", "other.json"], "different judges, tiny-judge .1. and n .1.; scores of two judges"),
        (
            ["full.json", "--suite", "dpg", "--compare", "other.json"],
            "full.json and other.json cannot .*different judges",
        ),
        (["full.json", "--suite", "wise"], "full.json: a result of suite 'dpg', not of 'wise'"),
        (["no.json", "--suite", "dpg"], "no.json"),
        (["full.json", "--suite", "dpg", "--limit", "2"], "saved results are compared as they are"),
        (
            ["tiny", "--suite", "wise", "--judge", "judge.yaml"],
            "no licence to come along with; --data names WISE's folder",
        ),
        (["no_detail.txt", *DPG], "no_detail.txt: no such file; --data names the benchmark's data, and recorded"),
        (["no_detail.txt", *DPG[:4]], "no_detail.txt: who gave these answers\\? --judge names a YAML file"),
        (["tiny", "--suite", "longtext"], "suite 'longtext' needs a judge"),
        (["tiny", "--suite", "longtext", "--judge", "judge.yaml"], "longtext_en.jsonl: .*prompt"),
    ],
)
def test_mistakes_are_one_line_before_anything_loads(files, nothing_loads, args, message):
    result = CliRunner().invoke(app, ["eval", *args])
    assert result.exit_code == 2, result.output + repr(result.exception)
    assert re.search(message, result.stderr), result.stderr
    assert len(result.stderr.strip().splitlines()) == 1, result.stderr


def test_a_judge_that_is_not_as_named_is_told_before_anything_loads(files, nothing_loads, monkeypatch):
    def said(**more):
        write_judge(served.url, **more)
        result = CliRunner().invoke(app, ["eval", "tiny", *DPG])
        assert result.exit_code == 2, result.output + repr(result.exception)
        return result.stderr.strip()

    with judging(lambda *_: "yes", token=TOKEN) as served:
        monkeypatch.setenv("JUDGE_KEY", TOKEN)
        assert "has no model 'gpt'; it has: 'tiny-judge'" in said(model="gpt", token_env="JUDGE_KEY")
        monkeypatch.setenv("JUDGE_KEY", "expired-yesterday")
        line = said(token_env="JUDGE_KEY")
        assert "the token in JUDGE_KEY is wrong, has expired or may not use it" in line
        assert "yesterday" not in line and "\n" not in line
    with judging(lambda *_: "yes", token=TOKEN, lists_to_all=True) as served:
        assert "the token in JUDGE_KEY is wrong, has expired or may not use it" in said(token_env="JUDGE_KEY")
    with judging(lambda *_: "yes") as served:
        served.url = served.url.removesuffix("/v1")
        assert "does the url end in /v1?" in said()


def test_a_subset_is_never_compared_with_a_full_run(files, nothing_loads):
    Path("few.json").write_text(json.dumps(dpg_result(subset=Subset(1, 0), prompts=PROMPTS[:1]).to_dict()))
    result = CliRunner().invoke(app, ["eval", "full.json", "--suite", "dpg", "--compare", "few.json"])
    assert result.exit_code == 2
    assert "all 2 prompts and 1 of 1065 prompts, drawn with seed 0; measure both on the same" in result.stderr


def test_saved_results_are_compared_without_a_model_or_a_judge(files, nothing_loads):
    result = CliRunner().invoke(app, ["eval", "full.json", "--suite", "dpg", "--compare", "full.json", "--json"])
    assert result.exit_code == 0, result.output + repr(result.exception)
    values = json.loads(result.stdout)
    assert {found["mean"] for found in values["difference"].values()} == {0.0}
    assert values["estimates"]["overall"]["mean"] == pytest.approx(0.425)
    assert CliRunner().invoke(app, ["eval", "full.json", "--suite", "dpg"]).exit_code == 0


def test_recorded_answers_are_scored_without_a_model_or_a_judge(files, nothing_loads):
    """Nobody is at the judge's address; its name and version are those of who gave the answers."""
    lines = [
        f"images/s{item}.png, (0, 0, 8, 8), {question}, {answer}"
        for item, colour in enumerate(("red", "blue", "green", "yellow"))
        for question, answer in (("Is there a star?", "yes" if item else "no"), (f"Is it {colour}?", "yes"))
    ]
    Path("a_detail.txt").write_text("\n".join(lines))
    result = CliRunner().invoke(app, ["eval", "a_detail.txt", *DPG, "--json"])
    assert result.exit_code == 0, result.output + repr(result.exception)
    values = json.loads(result.stdout)
    assert {name: found["mean"] for name, found in values["estimates"].items()} == {
        "entity": 0.75,
        "attribute": 1.0,
        "overall": 0.75,
    }
    assert (values["judge"], values["images_per_prompt"]) == ({"model": "tiny-judge", "version": "1"}, 1)
    Path("first.json").write_text(result.stdout)
    both = CliRunner().invoke(app, ["eval", "first.json", *DPG, "--compare", "a_detail.txt"])
    assert both.exit_code == 0, both.output + repr(both.exception)
    assert "+0.00 =" in both.stdout
    assert values["protocol"]["instructions"] == "recorded"
    assert "Recorded answers: nothing says in which words the judge was asked." in values["notes"]
    values["protocol"]["instructions"] = digest(ASKED.encode())  # as of a judge that this project asked
    Path("asked.json").write_text(json.dumps(values))
    asked = CliRunner().invoke(app, ["eval", "asked.json", *DPG, "--compare", "a_detail.txt"])
    assert asked.exit_code == 2, asked.output + repr(asked.exception)
    assert re.search(r"their judges were asked in different words \([0-9a-f]{12} and recorded\)$", asked.stderr.strip())
    some = CliRunner().invoke(app, ["eval", "a_detail.txt", *DPG, "--limit", "2"])
    assert "SUBSET: 2 of 4 prompts, drawn with seed 0" in some.stdout


def test_recorded_wise_scores_say_what_is_known_of_the_words(files, nothing_loads):
    """Of a judge that the user says was asked in the words of a file, they are comparable with such results."""
    Path("wise.json").write_text(json.dumps([entry(number) for number in (1, 401)]))
    keys = ("consistency", "realism", "aesthetic_quality")
    Path("a.jsonl").write_text(
        "".join(json.dumps({"prompt_id": number, **dict.fromkeys(keys, 1)}) + "\n" for number in (1, 401))
    )
    Path("ask.txt").write_text("{prompt} {explanation}")
    args = ["eval", "a.jsonl", "--suite", "wise", "--data", "wise.json", "--judge", "judge.yaml", "--json"]
    bare, said = (CliRunner().invoke(app, [*args, *more]) for more in ([], ["--suite-option", "instructions=ask.txt"]))
    assert (bare.exit_code, said.exit_code) == (0, 0), bare.output + said.output
    bare, said = json.loads(bare.stdout), json.loads(said.stdout)
    assert bare["protocol"] == {"edition": "legacy", "instructions": "recorded"}
    assert said["protocol"] == {"edition": "legacy", "instructions": digest(b"{prompt} {explanation}")}
    assert bare["notes"] == ["Recorded answers: nothing says in which words the judge was asked."]
    assert said["notes"] == ["The judge was asked as ask.txt says."]
    some = CliRunner().invoke(app, [*args, "--limit", "1"])  # the other line is passed over, being of the data
    assert some.exit_code == 0 and json.loads(some.stdout)["subset"] == {"limit": 1, "seed": 0}


def test_a_verified_result_from_before_the_edition_was_told_is_refused(files, nothing_loads):
    """Its categories had the other edition's ids."""
    Path("verified.json").write_text(json.dumps([entry(number, VERIFIED_RANGES) for number in (1, 550)]))
    Path("v.jsonl").write_text("".join(json.dumps({"prompt_id": number, "score": 1}) + "\n" for number in (1, 550)))
    args = ["--suite", "wise-verified", "--data", "verified.json", "--judge", "judge.yaml"]
    new = CliRunner().invoke(app, ["eval", "v.jsonl", *args, "--json"])
    assert new.exit_code == 0, new.output + repr(new.exception)
    values = json.loads(new.stdout)
    assert [column["name"] for column in values["columns"]] == ["culture", "space"]
    old = {**values, "protocol": {"instructions": "this project's"}}
    old["columns"][1].update(name="time", strata={"": {"550": 1.0}})
    Path("old.json").write_text(json.dumps(old))
    result = CliRunner().invoke(app, ["eval", "v.jsonl", *args, "--compare", "old.json"])
    assert result.exit_code == 2 and "edition is 'verified' and None" in result.stderr


def printed(report, width=100):
    console = Console(width=width, color_system=None)
    with console.capture() as capture:
        console.print(benchmark_tables(report))
    return capture.get()


def test_the_table_has_the_published_layout_and_says_who_judged():
    text = printed(BenchmarkReport((dpg_result(),), None))
    assert re.search(r"Model +Global +Entity +Attribute +Relation +Overall", text)
    assert re.search(r"runs/a +50.00 +50.00 +100.00 +100.00 +42.50", text)
    assert re.search(r"BLIP3o-NEXT 3B, after GRPO +– +– +– +– +81.92", text)
    assert "dpg: 2 prompts, 4 images each, in percent" in text
    assert "Judge: tiny-judge, version 1." in text
    assert "14 answers, 0 of them from the cache, 14 calls" in text and "SUBSET" not in text
    assert "with the official judge (mPLUG-large)" in text
    assert max(map(len, printed(BenchmarkReport((dpg_result(),), None), 80).splitlines())) <= 80


def test_a_subset_and_other_numbers_of_images_are_said_below_the_table():
    text = printed(BenchmarkReport((dpg_result(subset=Subset(2, 5), images_per_prompt=1),), None))
    assert "SUBSET: 2 of 1065 prompts, drawn with seed 5. Not the benchmark's number." in text
    assert "1 images a prompt; the benchmark has 4." in text


def test_wise_has_its_categories_and_no_overall_score_without_one_of_them():
    text = printed(BenchmarkReport((wise_result(),), None))
    assert re.search(r"Model +" + " +".join(name.capitalize() for name in RANGES) + " +Overall", text)
    assert re.search(r"runs/a +.50 +.70 +.20 +.10 +.50 +1.00 +.50", text)
    assert re.search(r"FLUX.1-dev +.48 +.58 +.62 +.42 +.51 +.35 +.50", text)
    some = printed(BenchmarkReport((wise_result(WISE_PROMPTS[:3]),), None))
    assert "No overall score: it needs prompts of every category." in some


def test_a_difference_is_shown_paired_and_in_the_tables_unit():
    better = dpg_result(
        "runs/better",
        [PROMPTS[0]],
        columns=find_suite("dpg").benchmark.columns([PROMPTS[0]], {"category_images": "all"}),
    )
    same = dpg_result("runs/same", [PROMPTS[0]], columns=better.columns)
    text = printed(BenchmarkReport((better, same), compare(better, same)))
    assert re.search(r"Overall +60.00 +60.00 +\+0.00 = +no interval \(n=1\) +1", text)
    assert "the same for both" in text


def test_every_benchmark_is_found_by_name_and_keeps_to_its_official_number():
    found = {name: find_any_suite(name) for name in available_suites()}
    reading = [name for name, suite in found.items() if isinstance(suite, ReadingSuite)]
    assert reading == ["text", "understanding"]
    benchmarks = {name: suite.benchmark for name, suite in found.items() if name not in reading}
    official = {name: benchmark.num_prompts for name, benchmark in benchmarks.items() if benchmark}
    assert official == {"dpg": 1065, "longtext": 160, "wise": 1000, "wise-verified": 1000}
    with pytest.raises(bg.ConfigError, match="has official data and a judge; measure it with blip3o_grpo.benchmark"):
        bg.evaluate("tiny", "dpg")
    with pytest.raises(bg.ConfigError, match="suite 'ocr' has no official data"):
        bg.benchmark("tiny", "ocr")
    with pytest.raises(bg.ConfigError, match="suite 'text' draws no images; measure it with blip3o_grpo.read_suite"):
        bg.evaluate("tiny", "text")
    with pytest.raises(bg.ConfigError, match="suite 'ocr' scores images; measure it with blip3o_grpo.evaluate"):
        bg.read_suite("tiny", "ocr")


def test_a_policy_on_questions_end_to_end(files):
    """The shipped policy, its real sampler, decoder and reward worker; the judge is a server that sees the pictures."""

    def reply(question, picture):
        assert picture.shape[2] == 3
        return "yes" if "star" in question or picture.mean() > 110 else "no"

    few = ["--set", "cluster.samplers=1", "--set", "cluster.decoders=1", "--images", "2"]
    with judging(reply) as served:
        write_judge(served.url, price_in=1.0, price_out=1.0)
        args = ["eval", "tiny", *DPG, *few, "--results", "run.txt", "--out", "grid.png", "--json"]
        result = CliRunner().invoke(app, args)
        assert result.exit_code == 0, result.output + repr(result.exception)
        asked = len(served.requests)
        Path("first.json").write_text(result.stdout)
        # Again, compared with what was saved: the same pictures, so every answer comes from the cache.
        again = CliRunner().invoke(app, ["eval", "tiny", *DPG, *few, "--compare", "first.json", "--json"])
        assert again.exit_code == 0, again.output + repr(again.exception)
        assert len(served.requests) == asked + 1
    first, values = load_result(Path("first.json")), json.loads(again.stdout)
    # One small question before the policy loads is the call without an answer.
    assert (first.usage.answers, first.usage.calls, first.usage.cached) == (16, 17, 0) and asked == 17
    assert first.usage.cost == pytest.approx(17 * 102 / 1e6)
    assert (values["usage"]["answers"], values["usage"]["calls"], values["usage"]["cached"]) == (16, 1, 16)
    assert {found["mean"] for found in values["difference"].values()} == {0.0}
    assert first.judge == {"model": "tiny-judge", "version": "1"} and first.prompts == ["s0", "s1", "s2", "s3"]
    entity, attribute, overall = (first.estimates()[name].mean for name in ("entity", "attribute", "overall"))
    assert entity == 1.0 and overall == pytest.approx((1 + attribute) / 2)
    lines = Path("run.txt").read_text().splitlines()
    means = [float(line.rsplit(", ", 1)[1]) for line in lines[:4]]
    assert lines[4] == f"DPG-Bench score: {np.mean(means) * 100}" and np.mean(means) == pytest.approx(overall)
    assert len(Path("run_detail.txt").read_text().splitlines()) == 16 and Path("run/s3.png").is_file()
    assert Path("grid.png").is_file()
