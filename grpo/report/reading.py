"""What a run's folder holds so far. A damaged file costs one sentence; the rest is read."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NotRequired, TypeVar

from pydantic import FiniteFloat, TypeAdapter, ValidationError
from typing_extensions import TypedDict  # pydantic asks for it before Python 3.12

from blip3o_grpo.configs import ConfigError, RewardSection, WarningsSection, read_yaml
from blip3o_grpo.configs.guards import GuardsSection
from blip3o_grpo.configs.mistakes import first_mistake
from blip3o_grpo.configs.regular_files import read_bytes, read_text
from blip3o_grpo.configs.schema import EvaluationSection
from blip3o_grpo.evaluation.heldout import Evaluation
from blip3o_grpo.run.environment import ENVIRONMENT, Start
from blip3o_grpo.run.files import EVALUATION_PICTURES, METRICS, SUMMARY, RunFileError, parse_object, read_object
from blip3o_grpo.run.folder import RunFolder
from blip3o_grpo.run.locks import is_held
from blip3o_grpo.run.metrics import spent_until

EVALUATIONS = re.compile(r"before|after|step-\d+", re.ASCII)
"""Names of evaluations; what else lies beside them is not a run's."""

Read = TypeVar("Read")


class ShownTrainer(TypedDict):
    """Of the section `trainer`, what the page shows."""

    max_steps: int
    num_iterations: NotRequired[int]  # runs of older versions have one
    beta: FiniteFloat
    mismatch_bound: FiniteFloat


class ShownRollout(TypedDict):
    """Of the section `rollout`, what the page shows."""

    prompts_per_step: int
    group_size: int


class ShownConfig(TypedDict):
    """What the page needs of a configuration, whatever other keys its version had."""

    seed: int
    policy: dict[str, Any]
    trainer: ShownTrainer
    rollout: ShownRollout
    rewards: list[dict[str, Any]]


SHOWN = TypeAdapter(ShownConfig)


class Problems:
    """Sentences about files that could not be read, in the order they were met."""

    def __init__(self) -> None:
        self.sentences: list[str] = []

    def add(self, sentence: str) -> None:
        if sentence not in self.sentences:
            self.sentences.append(sentence)

    def reading(self, read: Callable[[], Read], consequence: str) -> Read | None:
        """What `read` returns; None, and a sentence, if the file is damaged."""
        try:
            return read()
        except RunFileError as error:
            self.add(f"{error}; {consequence}")
            return None

    def read_lines(self, path: Path, schema: TypeAdapter, what: str, *, growing: bool = False) -> list[dict[str, Any]]:
        """The objects of a JSONL file, without those lines that are damaged; no such file: none.

        Args:
            what: a line is, for the sentence.
            growing: its last line may be cut off without a word.
        """
        if not path.exists():
            return []
        try:
            lines = read_bytes(path).decode("utf-8", errors="replace").split("\n")
        except OSError as error:
            self.add(f"{path}: cannot be read ({error.strerror}); its {what}s are left out")
            return []
        found, damaged = [], []
        for number, line in enumerate(lines[:-1] if growing else lines, start=1):
            try:
                if line.strip():
                    found.append(parse_object(line, schema, f"{path}:{number}"))
            except RunFileError as error:
                damaged.append(str(error))
        if damaged:
            others = f", and {len(damaged) - 1} more" if len(damaged) > 1 else ""
            self.add(f"{damaged[0]}{others}; left out: {len(damaged)} {what}{'s' * (len(damaged) > 1)}")
        return found


@dataclass(frozen=True)
class RunContents:
    """Everything that a report of a run is made from."""

    folder: RunFolder
    text: str
    """Of the configuration."""
    config: dict[str, Any]
    metrics: list[dict[str, Any]]
    """One entry per step, in their order."""
    summary: dict[str, Any] | None
    evaluations: dict[str, Evaluation]
    """By name (`before`, `step-N`, `after`), in order of their steps."""
    starts: list[Start]
    """Processes that worked on it; empty in runs of older versions."""
    training: bool
    """A process works on it."""
    problems: Problems = field(repr=False)

    def spent_until(self, step: int) -> tuple[float, float]:
        """Images painted to learn from, and minutes of steps, up to the end of a step."""
        rollout = self.config["rollout"]
        per_batch = rollout["prompts_per_step"] * rollout["group_size"] * rollout.get("noises_per_completion", 1)
        return spent_until(self.metrics, step, per_batch, self.config["trainer"].get("num_iterations", 1))

    @property
    def later(self) -> str | None:
        """Name of the latest evaluation that is not the one before training; `after` comes last."""
        names = [name for name in self.evaluations if name != "before"]
        return "after" if "after" in names else (names[-1] if names else None)

    @property
    def before(self) -> Evaluation | None:
        return self.evaluations.get("before")

    @property
    def after(self) -> Evaluation | None:
        return self.evaluations[self.later] if self.later else None

    @property
    def weights(self) -> dict[str, float]:
        return {reward["name"]: reward["weight"] for reward in self.config["rewards"]}

    @property
    def resumed(self) -> list[int]:
        """Steps after which another process went on."""
        return sorted({start["step"] for start in self.starts if start["step"]})

    def pictures(self, name: str | None) -> list[dict[str, Any]]:
        """Which pictures an evaluation saved, by prompt; none if it saved none."""
        index = self.folder.evaluations / f"{name}-images" / "index.jsonl"
        return self.problems.read_lines(index, EVALUATION_PICTURES, "prompt") if name else []


def read_run(run: RunFolder) -> RunContents:
    """What the folder holds.

    Raises:
        ConfigError: its `config.yaml` is not the configuration of a training run.
    """
    problems = Problems()
    text, config = read_config(run)
    has_summary = run.summary.exists()
    return RunContents(
        run,
        text,
        config,
        read_steps(run, problems),
        problems.reading(lambda: read_object(run.summary, SUMMARY), "it is left out") if has_summary else None,
        read_evaluations(run, problems),
        read_starts(run.environment, problems),
        is_held(run.lock),
        problems,
    )


def read_config(run: RunFolder) -> tuple[str, dict[str, Any]]:
    """The run's resolved configuration as text and as plain values; a run of an older version is as good as any."""
    values = read_yaml(run.config)
    try:
        SHOWN.validate_python(values, strict=True)
        WarningsSection.model_validate(values.get("warnings", {}))
        GuardsSection.model_validate(values.get("guards", {}))
        EvaluationSection.model_validate(values.get("evaluation", {}))
        rewards = [RewardSection.model_validate(reward).model_dump() for reward in values["rewards"]]
    except ValidationError as error:
        raise ConfigError(f"{run.config} is not the configuration of a training run ({first_mistake(error)})") from None
    return read_text(run.config), {**values, "rewards": rewards}


def read_steps(run: RunFolder, problems: Problems) -> list[dict[str, Any]]:
    """One entry per step of `metrics.jsonl`, in their order."""
    lines = problems.read_lines(run.metrics, METRICS, "step", growing=True)
    return [line for _, line in sorted({line["step"]: line for line in lines}.items())]


def read_evaluations(run: RunFolder, problems: Problems) -> dict[str, Evaluation]:
    """Held-out results by name, in order of their steps."""
    found: dict[str, Evaluation] = {}
    for file in sorted(run.evaluations.glob("*.json")):
        if EVALUATIONS.fullmatch(file.stem):
            evaluation = problems.reading(lambda file=file: Evaluation.load(file), "this evaluation is left out")
            if evaluation:
                found[file.stem] = evaluation
    return dict(sorted(found.items(), key=lambda item: (item[0] != "before", item[1].step)))


def read_starts(file: Path, problems: Problems) -> list[Start]:
    """The entries of an `environment.json`; none if there is no such file."""
    if not file.exists():
        return []
    found: Mapping[str, Any] | None = problems.reading(lambda: read_object(file, ENVIRONMENT), "it is left out")
    return list(found["starts"]) if found else []
