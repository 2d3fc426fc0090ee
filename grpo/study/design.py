"""What a study will do, checked whole before its first trial starts: its runs, and the held-out prompts they share.

STUDY/study.yaml           resolved study, written once everything was found right
STUDY/base.yaml            resolved base recipe with the study's rewards
STUDY/environment.json     what each process ran with: versions, commit, machine, command
STUDY/heldout.jsonl        held-out prompts of all suites, taking turns
STUDY/arms/NAME/seed-N     ordinary run folders
STUDY/report.html, study.json, matrix.csv, comparisons.csv
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, zip_longest
from pathlib import Path

from pydantic import ValidationError

from blip3o_grpo.configs import (
    ConfigError,
    RewardSection,
    RunConfig,
    differing_keys,
    dump_config,
    load_run_config,
    read_yaml,
)
from blip3o_grpo.configs.atomic import write_atomically
from blip3o_grpo.configs.regular_files import is_regular
from blip3o_grpo.configs.study import (
    WHOLE,
    ArmSection,
    GoalSection,
    StudyConfig,
    SuiteSection,
    arm_config,
    choose_goals,
    load_base,
)
from blip3o_grpo.errors import is_ours
from blip3o_grpo.policies import PromptError
from blip3o_grpo.rewards import find_reward
from blip3o_grpo.rollout import Prompt, load_prompts
from blip3o_grpo.run.folder import REWARD_FOUND, RunFolder
from blip3o_grpo.validate import CheckedRun, check_inputs, check_models

ENVIRONMENT_FILE = "environment.json"
ANALYSIS_KEYS = ("study_dir", "baseline", "correction", "goals", "trials")
"""What may change between two calls on one study folder."""
GROWING_KEYS = ("arms", "seeds")
"""What may gain entries: finished trials stay valid."""


@dataclass(frozen=True)
class Trial:
    """One run of a study."""

    arm: str
    seed: int
    config: RunConfig

    @property
    def name(self) -> str:
        return f"{self.arm}/seed-{self.seed}"

    @property
    def folder(self) -> RunFolder:
        return RunFolder(self.config.run_dir)

    @property
    def finished(self) -> bool:
        return is_regular(self.folder.summary)


@dataclass(frozen=True)
class StudyPlan:
    """A study that was checked: nothing in it can be known to fail."""

    study: StudyConfig
    base: RunConfig
    suites: dict[str, list[Prompt]]
    trials: list[Trial]
    goals: tuple[GoalSection, ...]
    """What a recommendation rests on."""

    @property
    def folder(self) -> Path:
        return Path(self.study.study_dir)


def plan_study(study: StudyConfig) -> StudyPlan:
    """Check everything and write the study's own files; starts nothing.

    Raises:
        ConfigError, PromptError, RewardError, CheckpointError: the first mistake, naming the arm, suite or key.
    """
    base = load_base(study)
    folder = Path(study.study_dir)
    suites = load_suites(study, base)
    prompts = [p for p in chain.from_iterable(zip_longest(*suites.values())) if p is not None]
    heldout = folder / "heldout.jsonl"
    goals = find_goals(study, base, suites)
    trials = make_trials(study, base, len(prompts))
    check_targets(study, trials)
    check_differ(trials)
    check_folder(folder, study, base)  # after the study itself: a mistake in it is said as such in an old folder too
    write_heldout(heldout, suites, prompts)
    arms = [check_arm(trial) for trial in trials if trial.seed == study.seeds[0]]
    for trial in trials:
        trial.folder.check(trial.config)
    for name, run in arms:  # imports torch: last
        with named(name):
            check_models(run)
    write_atomically(folder / "base.yaml", dump_config(base))
    write_atomically(folder / "study.yaml", dump_config(study))
    return StudyPlan(study, base, suites, trials, goals)


def check_targets(study: StudyConfig, trials: list[Trial]) -> None:
    """Refuse a target that no evaluation would see reached.

    Raises:
        ConfigError: naming the goal and the arm.
    """
    for index, goal in enumerate(study.goals):
        for trial in trials:
            every, steps = trial.config.evaluation.every_steps, trial.config.trainer.max_steps
            if goal.target is not None and not 0 < every < steps:
                raise ConfigError(
                    f"goals.{index}.target={goal.target:g}: evaluations on the way tell when it is reached, and arm "
                    f"{trial.arm!r} has none (evaluation.every_steps={every} of trainer.max_steps={steps}); set "
                    "evaluation.every_steps under the study's `overrides`, or leave the target out"
                )


def check_differ(trials: list[Trial]) -> None:
    """Refuse arms that are one run under two names, however they are written.

    Raises:
        ConfigError: naming both.
    """
    seen: dict[str, str] = {}
    for trial in trials:
        run = trial.config.model_copy(update={"run_dir": ""}).model_dump_json()  # seeds of an arm differ
        if (other := seen.setdefault(run, trial.arm)) != trial.arm:
            raise ConfigError(f"arm {trial.arm!r} does what arm {other!r} does; leave one of them out")


def make_trials(study: StudyConfig, base: RunConfig, num_prompts: int) -> list[Trial]:
    """Every arm with every seed.

    Raises:
        ConfigError: an arm with a mistake in it.
    """
    folder = Path(study.study_dir)
    fixed = {
        "prompts__heldout": str(folder / "heldout.jsonl"),
        "evaluation__num_prompts": num_prompts,
        # Arms may decode with other steps while they train, not when they are compared.
        "evaluation__num_diffusion_steps": base.evaluation.num_diffusion_steps or base.rollout.num_diffusion_steps,
    }
    return [
        Trial(
            arm.name,
            seed,
            arm_config(base, arm, seed=seed, run_dir=str(folder / "arms" / arm.name / f"seed-{seed}"), **fixed),
        )
        for arm in study.arms
        for seed in study.seeds
    ]


def find_goals(study: StudyConfig, base: RunConfig, suites: dict[str, list[Prompt]]) -> tuple[GoalSection, ...]:
    """The study's goals, or those that `choose_goals` takes instead.

    Raises:
        ConfigError: a goal that nothing measures.
    """
    measured = [
        (suite, reward.name)
        for suite, prompts in suites.items()
        for reward in base.rewards
        if reward.runtime_env or _applies(reward, prompts)
    ]
    return choose_goals(study, base.rewards, measured)


def read_plan(folder: Path) -> StudyPlan:
    """The plan that a study wrote into its folder, wherever that lies now; checks and starts nothing.

    Raises:
        ConfigError, PromptError: the folder's own files are no study's.
    """
    study = read_study(folder / "study.yaml").model_copy(update={"study_dir": str(folder.resolve())})
    base = load_run_config(folder / "base.yaml")
    suites: dict[str, list[Prompt]] = {section.name: [] for section in study.suites}
    for prompt in load_prompts(folder / "heldout.jsonl"):
        suites.setdefault(str(prompt.metadata.get("suite")), []).append(prompt)
    num_prompts = sum(map(len, suites.values()))
    return StudyPlan(study, base, suites, make_trials(study, base, num_prompts), find_goals(study, base, suites))


def read_study(file: Path) -> StudyConfig:
    """The configuration that a study wrote into its folder, of this version or an older one.

    Raises:
        ConfigError: it is something else.
    """
    try:
        return StudyConfig.model_validate(read_yaml(file))
    except (ConfigError, ValidationError):
        raise ConfigError(f"{file} is not the configuration of a study") from None


def check_folder(folder: Path, study: StudyConfig, base: RunConfig) -> None:
    """Refuse a folder that holds another study, or something else.

    Raises:
        ConfigError: naming what differs. More arms and seeds are welcome, other ones are not.
    """
    file = folder / "study.yaml"
    if not is_regular(file):
        if (folder / "config.yaml").is_file() or (folder / "arms").exists():
            raise ConfigError(f"{folder} holds something that is no study; give another study_dir")
        return
    try:
        earlier = read_study(file)
    except ConfigError as error:
        raise ConfigError(f"{error}; give another study_dir") from None
    differing = [
        key
        for key in differing_keys(earlier, study)
        if key.split(".")[0] not in (*ANALYSIS_KEYS, *GROWING_KEYS, "base", "overrides", "rewards")
    ]
    arms: dict[str, ArmSection] = {arm.name: arm for arm in study.arms}
    differing += [f"arm {arm.name!r}" for arm in earlier.arms if arms.get(arm.name) != arm]
    differing += [f"seed {seed}" for seed in earlier.seeds if seed not in study.seeds]
    # The base file may have moved: its content counts, with the study's overrides and rewards in it.
    changed = differing_keys(load_run_config(folder / "base.yaml"), base)
    differing += [f"base {key}" for key in changed if not REWARD_FOUND.fullmatch(key)]
    if differing:
        raise ConfigError(
            f"{folder} holds another study (differs in {', '.join(differing)}); give another study_dir, "
            "or the same study to resume it"
        )


def load_suites(study: StudyConfig, base: RunConfig) -> dict[str, list[Prompt]]:
    """Held-out prompts by suite.

    Raises:
        PromptError: a suite without prompts, or with prompts of another.
        ConfigError: a reward that applies to no held-out prompt.
    """
    sections = study.suites or (
        SuiteSection(name=WHOLE, prompts=base.prompts.heldout, num_prompts=base.evaluation.num_prompts),
    )
    suites: dict[str, list[Prompt]] = {}
    owner: dict[str, str] = {}
    for section in sections:
        try:
            suites[section.name] = load_prompts(section.prompts)[: section.num_prompts]
        except PromptError as error:
            raise PromptError(f"suite {section.name!r}: {error}") from None
        for prompt in suites[section.name]:
            if prompt.id in owner:
                raise PromptError(
                    f"suites {owner[prompt.id]!r} and {section.name!r} share the prompt {prompt.text!r}; "
                    "a held-out prompt belongs to one suite"
                )
            owner[prompt.id] = section.name
    for reward in base.rewards:
        everywhere = [prompt for prompts in suites.values() for prompt in prompts]
        if not reward.runtime_env and not _applies(reward, everywhere):
            raise ConfigError(f"reward {reward.name!r} applies to no held-out prompt of any suite")
    for name, prompts in suites.items():
        if not any(reward.runtime_env or _applies(reward, prompts) for reward in base.rewards):
            raise PromptError(f"suite {name!r} has no prompt that any reward of the study applies to")
    return suites


def check_arm(trial: Trial) -> tuple[str, CheckedRun]:
    """The arm's name and its run: all that `train` would refuse of its inputs, and rewards without training prompts.

    Raises:
        ConfigError, PromptError, RewardError, CheckpointError: naming the arm.
    """
    with named(trial.arm):
        run = check_inputs(trial.config)
        trained = [reward for reward in trial.config.rewards if reward.weight]
        if not any(reward.runtime_env or _applies(reward, run.train_prompts) for reward in trained):
            names = ", ".join(reward.name for reward in trained)
            raise ConfigError(f"no training prompt has a reward: {names} applies to none of {run.config.prompts.train}")
    return trial.arm, run


@contextmanager
def named(arm: str) -> Iterator[None]:
    """Put the arm's name before errors that are meant for the user."""
    try:
        yield
    except ValueError as error:
        if not is_ours(error):
            raise
        raise type(error)(f"arm {arm!r}: {error}") from None


def write_heldout(file: Path, suites: dict[str, list[Prompt]], prompts: list[Prompt]) -> None:
    """Write the prompts in the order given, each with its suite."""
    suite = {prompt.id: name for name, members in suites.items() for prompt in members}
    lines = [
        json.dumps({**p.metadata, "id": p.id, "prompt": p.text, "suite": suite[p.id]}, ensure_ascii=False)
        for p in prompts
    ]
    write_atomically(file, "\n".join(lines) + "\n")


def _applies(reward: RewardSection, prompts: list[Prompt]) -> bool:
    spec = find_reward(reward.target, reward.folder)
    return any(spec.applies(prompt.text, prompt.metadata) for prompt in prompts)
