"""The check of a GPU machine goes on after whatever happens to a part, keeps results, and says what was not run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from scripts import gpu_check
from scripts.gpu_check import FAILED, LATE, NOT_RUN, PASSED, Part, earlier_results, parts, run, table
from scripts.link_package import describe, link

ROOT = Path(__file__).parents[2]


def python(code: str, number: str = "9", limit_s: int = 60, **others) -> Part:
    """A part that runs some Python."""
    command = ("-c", code)
    return Part(number, "made-up", limit_s, command, command, others.pop("modules", ()), **others)


def run_here(part: Part, out: Path, gpus=("a GPU",), dry=False) -> dict:
    result = run(part, out, dry, gpus, part.limit_s, dict(os.environ))
    assert json.loads((out / part.folder / "result.json").read_text()) == result
    return result


def test_a_part_leaves_its_log_its_exit_code_and_its_last_line(tmp_path):
    good = run_here(python("print('begin'); print('all is well')"), tmp_path)
    assert (good["status"], good["exit_code"], good["note"]) == (PASSED, 0, "all is well")
    assert (tmp_path / "9-made-up/log.txt").read_text() == "begin\nall is well\n"
    bad = run_here(python("import sys; print('no'); sys.exit(3)"), tmp_path)
    assert (bad["status"], bad["exit_code"], bad["note"]) == (FAILED, 3, "no")
    lines = table([good, bad])
    assert len(lines) == 3 and lines[1].startswith("9 made-up  passed") and lines[2].endswith("no")


def test_a_part_that_runs_into_its_limit_is_ended_with_its_children(tmp_path):
    child = "import subprocess, time; print(subprocess.Popen(['sleep', '600']).pid, flush=True); time.sleep(600)"
    late = run_here(python(child, limit_s=2), tmp_path)
    assert late["status"] == LATE and late["exit_code"] is None and late["seconds"] < 30
    pid = int(late["note"])
    for _ in range(100):
        if not alive(pid):
            return
        time.sleep(0.1)
    pytest.fail("the child goes on")


def alive(pid: int) -> bool:
    """Whether a process runs; a dead one that nobody waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_nothing_that_a_part_started_outlives_it(tmp_path):
    """A process that a failed part left behind would hold the GPU of the next one."""
    leaves = "import subprocess, sys; print(subprocess.Popen(['sleep', '600']).pid, flush=True); sys.exit(1)"
    failed = run_here(python(leaves), tmp_path)
    assert failed["status"] == FAILED
    for _ in range(100):
        if not alive(int(failed["note"])):
            return
        time.sleep(0.1)
    pytest.fail("the child goes on")


def test_a_part_begins_with_an_empty_folder_and_keeps_what_cannot_be_measured_again(tmp_path):
    """A run that is there would be resumed and its numbers taken for new ones; those of a GPU outlive its machine."""
    first = python("open('OUT/numbers', 'x').close(); print('measured')".replace("OUT", "{out}"))
    for _ in range(2):
        assert run_here(first, tmp_path)["status"] == PASSED
    assert run(first, tmp_path, False, (), 5, dict(os.environ))["status"] == NOT_RUN
    assert (tmp_path / "9-made-up/numbers").exists()
    assert json.loads((tmp_path / "9-made-up/result.json").read_text())["status"] == PASSED


def test_a_summary_keeps_the_parts_of_earlier_calls_on_the_same_machine(tmp_path):
    here = {"torch": "2", "gpus": ["a GPU"]}
    bench = {"part": "1", "name": "bench", "status": PASSED}
    summary = {"dry_run": False, "machine": here | {"date": "yesterday"}, "parts": [bench]}
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    assert earlier_results(tmp_path, parts(), here, False) == {"1-bench": bench}
    assert earlier_results(tmp_path, parts(), here, True) == {}
    assert earlier_results(tmp_path, parts(), {"torch": "2", "gpus": ["another GPU"]}, False) == {}
    (tmp_path / "summary.json").write_text("[1]")
    assert earlier_results(tmp_path, parts(), here, False) == {}


def test_what_cannot_run_says_why(tmp_path):
    assert run_here(python(""), tmp_path, gpus=())["note"] == "no CUDA device"
    lacking = run_here(python("", modules=("json", "no_such_module")), tmp_path)
    assert (lacking["status"], lacking["note"]) == (NOT_RUN, "no module no_such_module")
    waiting = run_here(python("", needs="{all}/1-bench/calibration.json"), tmp_path)
    assert waiting["note"] == "calibration.json of an earlier part is missing"
    only_gpu = Part("9", "made-up", 5, ("-c", ""), None, ())
    assert run_here(only_gpu, tmp_path, dry=True)["note"] == "a CPU can show nothing of it"


def test_every_test_that_wants_a_gpu_is_in_a_part_and_every_part_names_files_that_are_there():
    known = parts()
    assert [part.number for part in known if part.number != "5"] == ["1", "2", "3a", "3b", "4"]
    tested = {text for part in known for text in part.command if text.startswith("tests/")}
    marked = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "tests").rglob("test_*.py")
        if "@pytest.mark." + "gpu" in path.read_text()
    }
    assert tested == marked
    for part in known:
        for text in part.command:
            assert not text.startswith(("scripts/", "tests/")) or (ROOT / text).is_file()


def test_the_checkout_is_importable_where_it_is_not_installed(tmp_path):
    """Its version and its rewards are known too, and nothing of the interpreter's own is changed for it."""
    link(tmp_path)
    describe(tmp_path)
    code = (
        "import importlib.metadata as m, blip3o_grpo\n"
        "print(blip3o_grpo.__path__[0], m.version('blip3o-grpo'))\n"
        "print(sorted(e.name for e in m.entry_points(group='blip3o_grpo.rewards')))"
    )
    made = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True
    )
    assert made.stdout.startswith(f"{tmp_path}/blip3o_grpo 0.1.0\n"), made.stderr
    assert "'ocr'" in made.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--parts", "7"], "no part '7'; there are 1, 2, 3a, 3b, 4, 5"),
        (["--limit", "1=soon"], "--limit 1=soon: give whole seconds, such as 1=600"),
        (["--out", __file__], f"--out {__file__}: File exists"),
    ],
)
def test_wrong_options_are_one_line(monkeypatch, capsys, arguments, message):
    monkeypatch.setattr(sys, "argv", ["gpu_check.py", *arguments])
    with pytest.raises(SystemExit) as left:
        gpu_check.main()
    assert left.value.code == 2 and message in capsys.readouterr().err


def check(out: Path, *arguments: str) -> tuple[int, str, dict]:
    """The script as one calls it: exit code, output, summary."""
    command = ["bash", str(ROOT / "scripts/gpu_check.sh"), "--out", str(out), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PYTHON": sys.executable})
    return done.returncode, done.stdout + done.stderr, json.loads((out / "summary.json").read_text())


def test_without_a_gpu_nothing_runs_and_the_exit_code_says_so(tmp_path):
    code, shown, summary = check(tmp_path, "--parts", "1,5")
    assert code == 1 and "not run" in shown
    assert {part["note"] for part in summary["parts"]} == {"no CUDA device"}


@pytest.mark.slow
def test_a_dry_run_does_what_a_cpu_can_do(tmp_path):
    code, shown, summary = check(tmp_path, "--dry-run")
    assert code == 0, shown
    statuses = {f"{part['part']} {part['name']}": part["status"] for part in summary["parts"]}
    assert {part: status for part, status in statuses.items() if part[0] != "5"} == dict.fromkeys(
        ["1 bench", "2 plan", "3a grpo", "3b train", "4 weights"], PASSED
    )
    assert {status for part, status in statuses.items() if part[0] == "5"} == {NOT_RUN}
    assert "dry run" in (tmp_path / "2-plan/log.txt").read_text()
    assert json.loads((tmp_path / "1-bench/calibration.json").read_text())["dry"] is True
    assert json.loads((tmp_path / "3a-grpo/grpo.json").read_text())["verdict"]["finite"]
