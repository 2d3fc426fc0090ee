"""The typed form of a study's YAML file: a base recipe, named arms that weigh its rewards differently, and seeds.

Every arm measures the same rewards (the base recipe's and the study's own) on the same held-out prompts; an arm's
`weights` say which of them it is trained on. What decides how an arm is measured cannot differ between arms.
"""

from __future__ import annotations

import difflib
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, model_validator

from blip3o_grpo.configs.loader import (
    PATH_KEYS,
    ConfigError,
    apply_override,
    describe_mistakes,
    expand_user,
    load_run_config,
    read_section,
    whole_path,
)
from blip3o_grpo.configs.names import HUB_NAME, SHIPPED
from blip3o_grpo.configs.reward_files import find_reward_folders
from blip3o_grpo.configs.schema import RewardSection, RunConfig
from blip3o_grpo.configs.section import Section

START = "start"
"""Name of the untrained policy among the arms."""
WHOLE = "heldout"
"""Name of the only suite of a study that names none."""
NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]*$"

FIXED = {
    "run_dir": "the study names its run folders",
    "seed": "list it under `seeds`",
    "rewards": "give `weights`; another variant of a reward belongs into the study's `rewards` under a name of its own",
    "prompts.heldout": "name the held-out prompts under `suites`",
    "evaluation": "arms are compared on the same images per prompt; set it under the study's `overrides`",
    "policy": "arms start from the same policy; set it under the study's `overrides`",
    "rollout.temperature": "held-out images are drawn with it; set it under the study's `overrides`",
    "rollout.noise": "held-out images are drawn with it; set it under the study's `overrides`",
    "rollout.guidance_interval": "held-out images are drawn with it; set it under the study's `overrides`",
    "rollout.guidance_scale": "held-out images are drawn with it; set it under the study's `overrides`",
}
"""Keys that an arm must not change, and what to do instead."""


class ArmSection(Section):
    """One way to train."""

    name: str = Field(pattern=NAME)
    """Also a folder name."""
    weights: dict[str, float] = Field(min_length=1)
    """Reward name to weight; rewards not named here are measured and not trained on."""
    overrides: dict[str, Any] = Field(default_factory=dict)
    """Other changes to the base recipe: `section.key: value`."""


class SuiteSection(Section):
    """Held-out prompts that are reported together."""

    name: str = Field(pattern=NAME)
    """Column of tables, and part of the names of goals."""
    prompts: str
    """Prompt file; a relative path is resolved against the study file's folder."""
    num_prompts: int | None = Field(default=None, ge=1)
    """Use only the first so many; None: all."""


class GoalSection(Section):
    """A measure that counts for the recommendation."""

    suite: str
    """Name of a suite; `heldout` where the study names none."""
    reward: str
    """Name of a reward that is measured on it."""
    margin: float = Field(default=0.05, gt=0)
    """Smallest difference that matters, in units of the reward: a gain counts from here on, and an arm is recommended
    only if a fall by more than this is excluded."""
    target: float | None = None
    """Score to reach: the report says after how many images and minutes each arm does. None: it does not."""

    @property
    def name(self) -> str:
        return f"{self.suite}/{self.reward}"


class TrialsSection(Section):
    """How many arms train at once, and what each reserves in Ray beside the workers of its run."""

    concurrency: int = Field(default=1, ge=1)
    """Arms that train at once."""
    cpus: float = Field(default=0.01, gt=0)
    """A trial itself only waits for its run; Ray Tune wants more than 0."""
    gpus: float = Field(default=0, ge=0)
    """GPUs that a trial reserves beside those of its workers."""


class StudyConfig(Section):
    """A reward ablation study."""

    study_dir: str = Field(min_length=1)
    """Folder of the study; the same command on it resumes."""
    base: str
    """Run recipe (YAML); a relative path is resolved against the study file's folder."""
    overrides: dict[str, Any] = Field(default_factory=dict)
    """Changes to the base recipe, for all arms."""
    rewards: tuple[RewardSection, ...] = ()
    """Rewards beside the base recipe's; arms weigh them, the others only measure them."""
    suites: tuple[SuiteSection, ...] = ()
    """None: one suite, `heldout`, of the base recipe's held-out prompts."""
    goals: tuple[GoalSection, ...] = ()
    """What a recommendation rests on; none: every reward that no arm trains on, on every suite it applies to."""
    arms: tuple[ArmSection, ...] = Field(min_length=1)
    seeds: tuple[int, ...] = Field(default=(0,), min_length=1)
    """Every arm is trained once with each."""
    baseline: str = START
    """Arm that the others are compared with; `start` is the untrained policy."""
    correction: Literal["holm", "benjamini_hochberg"] = "holm"
    """For multiple comparisons: Holm bounds the chance of any false finding, Benjamini-Hochberg the share of them."""
    trials: TrialsSection = TrialsSection()

    @model_validator(mode="after")
    def _consistent(self) -> StudyConfig:
        arms = [arm.name for arm in self.arms]
        suites = [suite.name for suite in self.suites]
        goals = [goal.name for goal in self.goals]
        for kind, names in (("arms", arms), ("suites", suites), ("seeds", self.seeds), ("goals", goals)):
            repeated = [name for name, times in Counter(names).items() if times > 1]
            if repeated:
                raise ValueError(f"{kind}: {repeated[0]!r} is used twice")
        folded = [name.lower() for name in arms]
        if len(set(folded)) < len(folded):
            raise ValueError("arms: two names differ only by upper and lower case; they are folder names")
        if START in folded:
            raise ValueError(f"arms: the name {START!r} means the untrained policy; take another")
        if any(not 0 <= seed < 2**31 for seed in self.seeds):
            raise ValueError("seeds: a seed is a number from 0 to 2147483647")
        _require_known(self.baseline, [START, *arms], "baseline: unknown arm")
        for index, goal in enumerate(self.goals):
            _require_known(goal.suite, suites or [WHOLE], f"goals.{index}: unknown suite")
        for key in self.overrides:
            if reason := self._decided(key):
                raise ValueError(f"overrides: {key!r} cannot be set for all arms: {reason}")
        for arm in self.arms:
            for key in flatten(arm.overrides):
                fixed = next((name for name in FIXED if key == name or key.startswith(f"{name}.")), None)
                if fixed:
                    raise ValueError(f"arm {arm.name!r}: {key!r} cannot be an override of an arm: {FIXED[fixed]}")
        return self

    def _decided(self, key: str) -> str | None:
        """Why no override for all arms may name this key: something else of the study decides it."""
        if key in ("run_dir", "seed"):
            return FIXED[key]
        if re.fullmatch(r"rewards\.\d+\.weight", key, re.ASCII):
            return "each arm decides it by its `weights`"
        if self.suites and key in ("prompts.heldout", "evaluation.num_prompts"):
            return "the study's `suites` decide it"
        return None


def _overlap(first: str, second: str) -> bool:
    """Whether one key is the other or lies in it."""
    return f"{first}.".startswith(f"{second}.") or f"{second}.".startswith(f"{first}.")


SMOKE = {
    "trainer.max_steps": 2,
    "trainer.num_iterations": 1,
    "trainer.micro_batch_size": None,
    "rollout.prompts_per_step": 2,
    "rollout.group_size": 4,
    "cluster.trainers": 1,
    "cluster.samplers": 1,
    "cluster.decoders": 1,
    "evaluation.images_per_prompt": 2,
    "evaluation.grid_prompts": 4,
    "evaluation.every_steps": 0,
    "guards.gold": [],
    "checkpoint.every_steps": 1,
}
SMOKE_ARMS = 2
SMOKE_PROMPTS = 4


OWN_KEYS = ("study_dir", "seeds", "baseline", "correction", "trials")
"""Of the study itself, what an override on the command line may set; any other key is one of every trial."""


def load_study_config(path: str | Path, overrides: Sequence[str] = (), *, smoke: bool = False) -> StudyConfig:
    """Read a study file.

    Args:
        path: of the YAML file.
        overrides: `section.key=value`, on top of the file's own.
        smoke: shrink it to a few minutes: two arms, one seed, two small steps, four prompts a suite, in its own folder.

    Raises:
        ConfigError: naming file and key, with the nearest known key.
    """
    path = expand_user(path)
    values = read_section(path)
    folder = path.resolve().parent
    _resolve(values, "base", folder)
    find_reward_folders(values.get("rewards"), folder)
    for suite in _items(values.get("suites")):
        _resolve(suite, "prompts", folder)
    for holder in (values, *_items(values.get("arms"))):
        if isinstance(holder.get("overrides"), dict):
            where = f"{path}: {_owner(holder, values)}overrides"
            try:
                holder["overrides"] = flatten(holder["overrides"])
            except ConfigError as error:
                raise ConfigError(f"{where}: {error}") from None
            _refuse_overlap(holder["overrides"], where)
            _resolve_paths(holder["overrides"], folder)
    given = [key for override in overrides if (key := apply_study_override(values, override))]
    try:
        study = StudyConfig.model_validate(values)
    except ValidationError as error:
        raise ConfigError(f"{path}: {describe_mistakes(StudyConfig, error)}") from None
    for key in given:  # an arm may differ from the file's `overrides`; from the command line's it would in silence
        for arm in study.arms:
            if own := [name for name in flatten(arm.overrides) if _overlap(key, name)]:
                raise ConfigError(f"override {key!r}: arm {arm.name!r} decides {own[0]!r} itself; change it in {path}")
    study = study.model_copy(update={"study_dir": str(whole_path(study.study_dir))})
    return shrink(study) if smoke else study


def apply_study_override(values: dict[str, Any], override: str) -> str | None:
    """Set one `section.key=value` of every trial, or one of `OWN_KEYS`, in the plain values of a study.

    Relative paths on the command line are those of the working folder.

    Returns:
        The key, if it is one of every trial.

    Raises:
        ConfigError: as `apply_override`.
    """
    key = override.partition("=")[0]
    if key.split(".")[0] in OWN_KEYS:
        apply_override(values, override)
        return None
    changed: dict[str, Any] = {"value": None}
    apply_override(changed, f"value={override.partition('=')[2]}" if key and "=" in override else override)
    if not isinstance(values.get("overrides"), dict):
        values["overrides"] = {}
    own = values["overrides"]
    for inner, value in flatten({key: changed["value"]}).items():
        for other in [other for other in own if _overlap(inner, other)]:
            del own[other]
        own[inner] = value
    _resolve_paths(own, Path.cwd())
    return key


def shrink(study: StudyConfig) -> StudyConfig:
    """The same study, small enough to see within minutes that everything works.

    Of arms that differ in what is shrunk alone the first one is left.
    """
    arms: list[ArmSection] = []
    for arm in study.arms:
        left = {key: value for key, value in arm.overrides.items() if key not in SMOKE}
        if len(arms) < SMOKE_ARMS and all((arm.weights, left) != (other.weights, other.overrides) for other in arms):
            arms.append(arm.model_copy(update={"overrides": left}))
    suites = tuple(suite.model_copy(update={"num_prompts": SMOKE_PROMPTS}) for suite in study.suites)
    few = {} if suites else {"evaluation.num_prompts": SMOKE_PROMPTS}
    return study.model_copy(
        update={
            "study_dir": f"{study.study_dir}-smoke",
            "overrides": {**study.overrides, **SMOKE, **few},
            "arms": tuple(arms),
            "suites": suites,
            "seeds": study.seeds[:1],
            "goals": tuple(goal.model_copy(update={"target": None}) for goal in study.goals),
            "baseline": study.baseline if study.baseline in [arm.name for arm in arms] else START,
        }
    )


def load_base(study: StudyConfig) -> RunConfig:
    """The base recipe with the study's own overrides and rewards.

    Raises:
        ConfigError: as `load_run_config`, or a reward of the study that has the name of one of the base's.
    """
    base = load_run_config(study.base, as_overrides(study.overrides))
    names = [reward.name for reward in (*base.rewards, *study.rewards)]
    repeated = [name for name in names if names.count(name) > 1]
    if repeated:
        raise ConfigError(f"rewards: {repeated[0]!r} is used twice; the study's rewards come on top of {study.base}'s")
    return base.model_copy(update={"rewards": (*base.rewards, *study.rewards)})


def weights_of(arm: ArmSection, rewards: Iterable[RewardSection]) -> dict[str, float]:
    """Weight of every reward that an arm trains on, by whatever name: the same reward under another one is paid too."""
    rewards = list(rewards)
    paid = {_what_it_is(reward): weight for reward in rewards if (weight := arm.weights.get(reward.name))}
    return {reward.name: paid[_what_it_is(reward)] for reward in rewards if _what_it_is(reward) in paid}


def _what_it_is(reward: RewardSection) -> str:
    return json.dumps([reward.target, reward.folder, reward.options, reward.runtime_env], sort_keys=True, default=str)


def choose_goals(
    study: StudyConfig, rewards: Iterable[RewardSection], measured: Iterable[tuple[str, str]]
) -> tuple[GoalSection, ...]:
    """The study's goals; if it names none, the measures whose reward no arm trains on.

    Args:
        rewards: of the base recipe and the study.
        measured: (suite, reward) of everything that is measured.

    Raises:
        ConfigError: a goal that is not measured, with the nearest that is.
    """
    measured, rewards = list(measured), list(rewards)
    if not study.goals:
        trained = {name for arm in study.arms for name, weight in weights_of(arm, rewards).items() if weight}
        return tuple(GoalSection(suite=suite, reward=reward) for suite, reward in measured if reward not in trained)
    for index, goal in enumerate(study.goals):
        there = [reward for suite, reward in measured if suite == goal.suite]
        _require_known(goal.reward, there, f"goals.{index}: on suite {goal.suite!r} nothing measures")
    return study.goals


def arm_config(base: RunConfig, arm: ArmSection, **fixed: Any) -> RunConfig:
    """The run of an arm: the base recipe with the arm's weights and overrides.

    Args:
        base: what `load_base` returns.
        fixed: dotted keys with `__` for the dot, set last: `prompts__heldout="..."`.

    Raises:
        ConfigError: unknown reward or key, a wrong value, or weights that are all zero; names the arm.
    """
    names = [reward.name for reward in base.rewards]
    for name in arm.weights:
        _require_known(name, names, f"arm {arm.name!r}: unknown reward")
    if not any(arm.weights.values()):
        raise ConfigError(f"arm {arm.name!r}: all weights are 0, so there is nothing to train on")
    values = base.model_dump(mode="json")
    for reward in values["rewards"]:
        reward["weight"] = arm.weights.get(reward["name"], 0.0)
    try:
        for override in as_overrides({**arm.overrides, **{key.replace("__", "."): v for key, v in fixed.items()}}):
            apply_override(values, override)
        return RunConfig.model_validate(values)
    except ValidationError as error:
        raise ConfigError(f"arm {arm.name!r}: {describe_mistakes(RunConfig, error)}") from None
    except ConfigError as error:
        raise ConfigError(f"arm {arm.name!r}: {error}") from None


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as dotted keys: `{"trainer": {"beta": 0}}` is `{"trainer.beta": 0}`.

    Raises:
        ConfigError: a key is there in both forms.
    """
    flat: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        inside = flatten(value, f"{name}.") if isinstance(value, dict) and value else {name: value}  # {}: a section
        if twice := flat.keys() & inside.keys():
            raise ConfigError(f"{min(twice)!r} is said twice; give it once")
        flat |= inside
    return flat


def as_overrides(values: Mapping[str, Any]) -> list[str]:
    """`section.key=value` as the command line takes it; JSON is YAML."""
    return [f"{key}={json.dumps(value, default=str)}" for key, value in values.items()]


def _require_known(name: str, known: Iterable[str], problem: str) -> None:
    known = list(known)
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
        raise ConfigError(f"{problem} {name!r}; {hint}")


def _owner(holder: Mapping[str, Any], study: Mapping[str, Any]) -> str:
    return "" if holder is study else f"arm {holder.get('name')!r}: "


def _refuse_overlap(overrides: Mapping[str, Any], where: str) -> None:
    """What one of two keys says of the other's value would hang on their order."""
    for first, second in combinations(overrides, 2):
        if _overlap(first, second):
            raise ConfigError(f"{where}: {first!r} and {second!r} say it twice; give one of them")


def _items(values: Any) -> list[dict]:
    return [item for item in values if isinstance(item, dict)] if isinstance(values, list) else []


def _resolve_paths(overrides: dict[str, Any], folder: Path) -> None:
    """Make the paths among overrides whole; the name of a policy on the hub is none."""
    for key in (".".join(parts) for parts in PATH_KEYS):
        value = overrides.get(key)
        if not (key == "policy.path" and isinstance(value, str) and _is_no_folder(value, folder)):
            _resolve(overrides, key, folder)


def _is_no_folder(policy: str, folder: Path) -> bool:
    return policy in SHIPPED or bool(HUB_NAME.fullmatch(policy) and not (folder / expand_user(policy)).is_dir())


def _resolve(values: dict, key: str, folder: Path) -> None:
    if isinstance(values.get(key), str) and "\0" not in values[key]:  # validation refuses that
        values[key] = str(whole_path(folder / expand_user(values[key])))
