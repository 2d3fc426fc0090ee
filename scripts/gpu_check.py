"""Everything that only a GPU can show, in order of worth: each part has its own time limit and its own saved result.

    bash scripts/gpu_check.sh [--out gpu_check] [--parts 1,3a] [--limit 1=900] [--dry-run]

    1    bench         `bench_gpu.py` at the released size: every stage, as released and ours
    2    plan          `blip3o-grpo plan` with the calibration that part 1 wrote
    3a   grpo          a short GRPO run of the tiny policy in one process, without Ray, vLLM and TRL
    3b   train         the same recipe as a whole run on one GPU, with the cluster's packages
    4    weights       weights from GPU to GPU: CUDA IPC with sleep mode, NCCL where there are two GPUs
    5    tests         every other test that wants a GPU, file by file

A part that fails or runs into its limit does not stop the others. A part whose packages are missing is not run, and
says so: such machines often have PyTorch and no Ray. `OUT/NAME/` holds log.txt, result.json (status, exit code,
seconds, command) and what the part wrote; a part that runs again begins with an empty folder. `OUT/summary.json` has
all results that are there, those of earlier calls on the same machine too, so that a check that was cut off goes on
with `--parts`. Exit code 1 if a part failed or ran into its limit, or if none could run. Python's own library only.

A dry run does on a CPU, at a tiny size, what a CPU can do of each part; its OUT is another one, `gpu_check/dry_run`.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
from scripts.link_package import describe, link  # noqa: E402

GRACE_S = 20
"""Between asking a part to end and ending it."""
ASK_S = 120
"""For PyTorch to say what the machine is; with a broken driver it may never."""
OUT, RESULT = Path("gpu_check"), "result.json"
PASSED, FAILED, LATE, NOT_RUN = "passed", "failed", "timed out", "not run"
TRANSFERS = "tests/rollout/weights/test_transfer.py"
ONE_GPU = tuple(f"cluster.gpus_per_{kind}={share}" for kind, share in (("trainer", 0.35), ("sampler", 0.35))) + (
    "cluster.gpus_per_decoder=0.3",
)
SMALL_EVALUATION = ("evaluation.num_prompts=2", "evaluation.images_per_prompt=4", "evaluation.every_steps=0")
CLUSTER = ("ray", "vllm", "trl", "diffusers", "datasets", "pydantic", "typer", "onnxruntime", "rapidocr", "paddleocr")


@dataclass(frozen=True)
class Part:
    """One thing to run. In commands, `{out}` is the part's folder and `{all}` that of all parts."""

    number: str
    name: str
    limit_s: int
    command: tuple[str, ...]
    """Arguments of Python."""
    dry: tuple[str, ...] | None
    """On a CPU; None: a CPU can show nothing of it."""
    modules: tuple[str, ...]
    """That must be importable."""
    dry_code: int = 0
    """Exit code of a dry run that is right."""
    needs: str | None = None
    """File of an earlier part."""

    @property
    def folder(self) -> str:
        """Of its results."""
        return f"{self.number}-{self.name}"


CALIBRATION = "{all}/1-bench/calibration.json"
BENCH = ("scripts/bench_gpu.py", "--json", "{out}/bench.json", "--calibration", "{out}/calibration.json")
PLAN = ("-m", "blip3o_grpo.cli", "plan", "blip3o_next_ocr", "--calibration", CALIBRATION, "--tune", "8", "--json")
GRPO = ("scripts/gpu_grpo.py", "--json", "{out}/grpo.json")
TRAIN = ("-m", "blip3o_grpo.cli", "train", "tiny_ocr", "run_dir={out}/run", *SMALL_EVALUATION)
PYTEST = ("-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider")
TINY_BENCH = ("--dry-run", "--scale", "0.02", "--prompts", "2", "--group-size", "2", "--images-per-decode", "4")
TINY_BENCH += ("--steps", "2", "--few-steps", "1", "--rollouts", "1", "--repeats", "1")
TINY_RUN = ("trainer.max_steps=1", "rollout.prompts_per_step=2", "rollout.group_size=4", "cluster.samplers=1")
TINY_RUN += ("cluster.decoders=1",)


def parts() -> list[Part]:
    """In order of worth."""
    diffusers = ("torch", "transformers", "diffusers", "accelerate")
    found = [
        Part("1", "bench", 900, BENCH, (*BENCH, *TINY_BENCH), (*diffusers, "rich")),
        Part("2", "plan", 120, PLAN, PLAN, (*diffusers, "pydantic", "typer", "ray"), 2, CALIBRATION),
        Part("3a", "grpo", 300, GRPO, (*GRPO, "--device=cpu", "--steps=2", "--prompts=2", "--group-size=2"), diffusers),
        Part("3b", "train", 900, (*TRAIN, *ONE_GPU, "trainer.max_steps=8"), (*TRAIN, *TINY_RUN), CLUSTER),
        Part("4", "weights", 600, (*PYTEST, "-m", "gpu", TRANSFERS), (*PYTEST, TRANSFERS), ("pytest", *CLUSTER)),
    ]
    files = [path.relative_to(ROOT).as_posix() for path in sorted((ROOT / "tests").rglob("test_*.py"))]
    for file in files:
        if "pytest.mark.gpu" in (ROOT / file).read_text(encoding="utf-8") and file != TRANSFERS:
            found.append(
                Part("5", f"tests-{Path(file).stem}", 600, (*PYTEST, "-m", "gpu", file), None, ("pytest", "torch"))
            )
    return found


def missing(modules: Sequence[str]) -> list[str]:
    """Of these, what cannot be imported."""
    return [name for name in modules if importlib.util.find_spec(name) is None]


def machine() -> dict[str, Any]:
    """What the parts run on; asked in a process of its own, so that this one holds nothing of the GPU."""
    code = (
        "import json, torch\n"
        "cuda = torch.cuda.is_available()\n"
        "print(json.dumps({'torch': torch.__version__, 'cuda': torch.version.cuda,\n"
        "  'gpus': [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] if cuda else []}))"
    )
    try:
        asked = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=ASK_S)
        answer = asked.stdout if asked.returncode == 0 else ""
    except subprocess.TimeoutExpired:
        answer = ""
    found = json.loads(answer) if answer else {"torch": None, "cuda": None, "gpus": []}
    return {"python": sys.version.split()[0], "date": time.strftime("%Y-%m-%d %H:%M:%S"), **found}


def environment(out: Path) -> dict[str, str]:
    """Of the parts: this checkout is importable in it, installed or not, and nothing is downloaded."""
    package = out / "package"
    link(package)
    describe(package)
    path = os.pathsep.join([str(package), str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    return os.environ | {"PYTHONPATH": path, "PYTHONUNBUFFERED": "1", "HF_HUB_OFFLINE": "1"}


def why_not(part: Part, out: Path, dry: bool, gpus: Sequence[str]) -> str | None:
    """Reason why a part cannot run here; None: it can."""
    if dry and part.dry is None:
        return "a CPU can show nothing of it"
    if not dry and not gpus:
        return "no CUDA device"
    if absent := missing(part.modules):
        return f"no module {absent[0]}"
    if part.needs and not Path(part.needs.format(all=out)).is_file():
        return f"{Path(part.needs).name} of an earlier part is missing"
    return None


def run(part: Part, out: Path, dry: bool, gpus: Sequence[str], limit_s: int, env: dict[str, str]) -> dict[str, Any]:
    """Run a part and save its result. What an earlier call left of it goes, unless the part cannot run now."""
    folder = out / part.folder
    result: dict[str, Any] = {"part": part.number, "name": part.name, "limit_s": limit_s}
    if reason := why_not(part, out, dry, gpus):
        result |= {"status": NOT_RUN, "note": reason}
        if was_run(folder / RESULT):
            return result  # and the call that could run it keeps its own
        folder.mkdir(parents=True, exist_ok=True)
    else:
        shutil.rmtree(folder, ignore_errors=True)  # a run that is there would be taken for this one's, and resumed
        folder.mkdir(parents=True, exist_ok=True)
        arguments = [text.format(out=folder, all=out) for text in (part.dry if dry else part.command)]
        command, log = [sys.executable, *arguments], folder / "log.txt"
        started = time.monotonic()
        code = run_within(command, log, limit_s, env)
        result |= {
            "status": LATE if code is None else PASSED if code == (part.dry_code if dry else 0) else FAILED,
            "exit_code": code,
            "seconds": round(time.monotonic() - started, 1),
            "command": shlex.join(command),
            "note": last_line(log),
        }
    (folder / RESULT).write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return result


def was_run(file: Path) -> bool:
    """Whether a saved result is of a part that ran."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))["status"] != NOT_RUN
    except (OSError, ValueError, KeyError, TypeError):
        return False


def run_within(command: Sequence[str], log: Path, limit_s: int, env: dict[str, str]) -> int | None:
    """Exit code of a command whose output goes to `log`; None: it ran into its limit, and its group was ended.

    Whatever its end, and if this process is told to end, nothing of its group is left that could hold a GPU.
    """
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=ROOT, env=env, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            return process.wait(limit_s)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                process.wait(GRACE_S)
            return None
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def last_line(log: Path) -> str:
    """What a log ends with, for the summary."""
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return lines[-1].strip()[:200] if lines else ""


def table(results: Sequence[dict[str, Any]]) -> list[str]:
    """A line per part."""
    rows = [("part", "status", "seconds", "note")]
    rows += [
        (f"{r['part']} {r['name']}", r["status"], "" if "seconds" not in r else f"{r['seconds']:.0f}", r["note"])
        for r in results
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return ["  ".join([*(text.ljust(width) for text, width in zip(row, widths, strict=False)), row[3]]) for row in rows]


def earlier_results(out: Path, known: Sequence[Part], machine: dict[str, Any], dry: bool) -> dict[str, dict[str, Any]]:
    """Folder to result of the parts that an earlier call ran on such a machine, as its summary has them."""
    try:
        summary = json.loads((out / "summary.json").read_text(encoding="utf-8"))
        results = {f"{result['part']}-{result['name']}": result for result in summary["parts"]}
        same = summary["dry_run"] == dry and all(summary["machine"][key] == machine[key] for key in ("torch", "gpus"))
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return {part.folder: results[part.folder] for part in known if part.folder in results} if same else {}


def stop(number: int, frame: Any) -> None:
    """A signal ends this process the way an error does, and so the part that runs."""
    sys.exit(128 + number)


def say(line: str) -> None:
    """At once: this may be cut off."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> None:
    """Run the parts and sum up."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help=f"folder of the results; default: {OUT}, of a dry run {OUT}/dry_run")
    parser.add_argument("--parts", help="only these, as 1,3a; default: all")
    parser.add_argument("--limit", action="append", default=[], metavar="PART=SECONDS", help="instead of a part's own")
    parser.add_argument("--dry-run", action="store_true", help="on a CPU, at a tiny size")
    args = parser.parse_args()
    known = parts()
    numbers = list(dict.fromkeys(part.number for part in known))
    wanted = args.parts.split(",") if args.parts else numbers
    limits = dict(limit.partition("=")[::2] for limit in args.limit)
    for number in [*wanted, *limits]:
        if number not in numbers:
            parser.error(f"no part {number!r}; there are {', '.join(numbers)}")
    for number, seconds in limits.items():
        if not seconds.isdecimal() or not int(seconds):
            parser.error(f"--limit {number}={seconds}: give whole seconds, such as {number}=600")
    out = (args.out or (OUT / "dry_run" if args.dry_run else OUT)).resolve()
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        parser.error(f"--out {out}: {error.strerror}")
    signal.signal(signal.SIGTERM, stop)
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # nohup's
        signal.signal(signal.SIGHUP, stop)
    here, env, results = machine(), environment(out), []
    found = earlier_results(out, known, here, args.dry_run)
    say(f"{', '.join(here['gpus']) or 'no GPU'}, torch {here['torch']}, Python {here['python']}; results: {out}")
    for part in known:
        if part.number in wanted:
            limit_s = int(limits.get(part.number, part.limit_s))
            say(f"part {part.number} {part.name}: at most {limit_s} s")
            results.append(run(part, out, args.dry_run, here["gpus"], limit_s, env))
            say(f"part {part.number} {part.name}: {results[-1]['status']}: {results[-1]['note']}")
            if results[-1]["status"] != NOT_RUN or part.folder not in found:
                found[part.folder] = results[-1]
            ordered = [found[each.folder] for each in known if each.folder in found]
            summary = {"dry_run": args.dry_run, "machine": here, "parts": ordered}
            (out / "summary.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    say("")
    for line in table(results):
        say(line)
    statuses = {result["status"] for result in results}
    sys.exit(1 if statuses & {FAILED, LATE} or PASSED not in statuses else 0)


if __name__ == "__main__":
    main()
