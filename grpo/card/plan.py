"""What a card of a run measures, and whether it can: known before a model loads or a worker starts."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from blip3o_grpo.card.measures import DIVERSITY, MARGINS
from blip3o_grpo.card.rewording import reword
from blip3o_grpo.configs import DEFAULT_RECIPE, ConfigError, RewardSection, RunConfig, load_run_config
from blip3o_grpo.configs.regular_files import is_regular
from blip3o_grpo.evaluation.suites import check_policy, measuring_config, suite_reward
from blip3o_grpo.policies import CheckpointError, PromptEncoder, PromptError
from blip3o_grpo.rewards import RewardError
from blip3o_grpo.rewards.suites import ReadingData, ReadingSuite, available_suites, find_any_suite
from blip3o_grpo.rollout import Prompt, load_prompts
from blip3o_grpo.run.folder import RunFolder, policy_folder
from blip3o_grpo.run.locks import is_held
from blip3o_grpo.validate import check_rewards, find_checked

HELDOUT, REWORDED = "heldout", "reworded"
"""Names of the sets of prompts."""


@dataclass(frozen=True)
class Request:
    """What was asked for, as a card keeps it to be made again."""

    suites: list[str] | None = None
    """None: every suite that can be measured on the run's prompts."""
    margins: list[str] | None = None
    """`MEASURE=VALUE`, or a value alone for all measures."""
    overrides: list[str] | None = None
    """Changes of the run's settings, `section.key=value`."""


@dataclass(frozen=True)
class CardPlan:
    """A card that can be made."""

    run: RunFolder
    own: RunConfig
    """Of the run."""
    config: RunConfig
    """Of the measurement: the run's rewards with their weights, and those of suites with weight 0."""
    start: Path
    trained: Path
    """Folders of the two policies."""
    prompts: list[Prompt]
    sets: dict[str, list[str]]
    """Name to ids of prompts."""
    reading: dict[str, tuple[ReadingSuite, ReadingData]]
    """Suites in which the policies read, with what they read."""
    margins: dict[str, float]
    """By measure; the default for others."""
    left_out: list[str]
    """What is not measured, and why, in sentences."""
    request: Request

    @property
    def lower(self) -> set[str]:
        """Measures of which less is better."""
        return {each.name for suite, _ in self.reading.values() for each in suite.measures if each.lower_is_better}


def plan_card(run: str | Path, request: Request) -> CardPlan:
    """Find out what can be measured of a finished run.

    Raises:
        ConfigError: no finished run, an unknown suite, measure or setting.
        CheckpointError, PromptError, RewardError: policies, prompts or rewards that cannot be used.
    """
    folder = RunFolder(run)
    if not is_regular(folder.config):
        raise ConfigError(
            f"{folder.path} is not a run folder: it has no config.yaml (give the `run_dir` of a training run)"
        )
    if is_held(folder.lock):
        raise ConfigError(f"{folder.path} is still at work; a card is made of a finished run")
    overrides = list(request.overrides or [])
    trained = policy_folder(folder.path)
    if kept := [override for override in overrides if override.startswith(("policy.path", "run_dir"))]:
        raise ConfigError(f"--set {kept[0]}: a card is about the run's own two policies; leave it out")
    own = load_run_config(folder.config)
    start = policy_folder(own.policy.path)
    base = measuring_config("card", [str(folder.path)], folder.config, DEFAULT_RECIPE, None, overrides)
    heldout = load_prompts(base.prompts.heldout)[: base.evaluation.num_prompts]
    suites, left_out = _suites(request.suites, base, heldout)
    reading = _reading(request.suites, (start, trained), left_out)
    reworded = reword(heldout, PromptEncoder.from_pretrained(trained, plain=True))
    if len(reworded) < len(heldout):
        left_out.append(f"{len(heldout) - len(reworded)} reworded prompts: they do not fit the policy's context")
    if base.evaluation.images_per_prompt < 2:
        left_out.append(f"{DIVERSITY}: evaluation.images_per_prompt=1, and it is a distance between images")
    prompts = [*heldout, *reworded]
    config = base.model_copy(
        update={
            "run_dir": str(folder.path / "eval" / "card"),  # of failures
            "rewards": (*base.rewards, *suites),
            "evaluation": base.evaluation.model_copy(update={"num_prompts": len(prompts)}),
        }
    )
    of_reading = {each.name: each.margin for suite, _ in reading.values() for each in suite.measures}
    measures = [*(reward.name for reward in config.rewards), DIVERSITY, *of_reading]
    margins = of_reading | read_margins(request.margins or (), measures)
    check_rewards(config)
    for name in (start, trained):
        check_policy(str(name), prompts, config)
    sets = {name: [p.id for p in found] for name, found in ((HELDOUT, heldout), (REWORDED, reworded)) if found}
    return CardPlan(folder, own, config, start, trained, prompts, sets, reading, margins, left_out, request)


def _suites(
    names: Sequence[str] | None, base: RunConfig, prompts: Sequence[Prompt]
) -> tuple[list[RewardSection], list[str]]:
    """Rewards of suites that the run does not have itself, by the names `suite_NAME`; and what is not measured."""
    found, left_out = [], []
    for name in dict.fromkeys(available_suites() if names is None else names):
        suite = find_any_suite(name)
        if isinstance(suite, ReadingSuite):
            continue
        if suite.benchmark is not None:
            reason = f"suite {name}: official data and a judge; measure it with blip3o-grpo eval RUN --suite {name}"
        else:
            section = suite_reward(suite, base)
            own = next((reward.name for reward in base.rewards if _same(reward, section)), None)
            reason = f"suite {name}: the run's own reward {own!r} is the same" if own else None
            reason = reason or _unusable(name, section, prompts, suite.needs)
        if reason is None:
            column = f"suite_{name.replace('-', '_')}"
            found.append(section.model_copy(update={"name": column, "type": suite.reward, "weight": 0.0}))
        elif names is None or reason.startswith(f"suite {name}: the run's"):
            left_out.append(reason)
        else:
            raise ConfigError(f"--suites: {reason}")
    return found, left_out


def _reading(
    names: Sequence[str] | None, policies: Sequence[Path], left_out: list[str]
) -> dict[str, tuple[ReadingSuite, ReadingData]]:
    """Suites in which both policies can read what comes along; what cannot be read is added to `left_out`.

    Raises:
        ConfigError: a suite that was asked for cannot be measured.
    """
    found = {}
    for name in dict.fromkeys(available_suites() if names is None else names):
        suite = find_any_suite(name)
        if not isinstance(suite, ReadingSuite):
            continue
        try:
            data = suite.read(None)
            for policy in policies:
                suite.check(policy, data)
        except (ConfigError, CheckpointError, PromptError) as error:
            if names is not None:
                raise ConfigError(f"--suites: suite {name}: {error}") from None
            left_out.append(f"suite {name}: {error}")
            continue
        found[name] = (suite, data)
    return found


def _unusable(name: str, section: RewardSection, prompts: Sequence[Prompt], needs: str) -> str | None:
    """Why a suite's reward cannot score the prompts here, or None."""
    try:
        spec = find_checked(section)
        fitting = [prompt for prompt in prompts if spec.applies(prompt.text, prompt.metadata)]
        for prompt in fitting:
            spec.check_prompt(prompt.text, prompt.metadata, section.options)
    except RewardError as error:
        return f"suite {name}: {error}"
    return None if fitting else f"suite {name}: no held-out prompt has what it needs, {needs}"


def _same(first: RewardSection, second: RewardSection) -> bool:
    return (first.target, first.folder, first.options) == (second.target, second.folder, second.options)


def read_margins(given: Iterable[str], measures: Sequence[str]) -> dict[str, float]:
    """Margins by measure, from `VALUE` for all and `MEASURE=VALUE`, which counts for its measure.

    Raises:
        ConfigError: no number above 0, or an unknown measure, with the nearest known one.
    """
    margins, own = dict(MARGINS), {}
    for text in given:
        name, equals, value = text.rpartition("=")
        try:
            margin = float(value)
        except ValueError:
            margin = 0.0
        if not 0 < margin < float("inf"):
            raise ConfigError(f"--margin {text}: expected a number above 0, such as 0.05, or MEASURE=0.05")
        if equals and name not in measures:
            near = difflib.get_close_matches(name, measures, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(measures)}"
            raise ConfigError(f"--margin {text}: nothing measures {name!r}; {hint}")
        if equals:
            own[name] = margin
        else:
            margins = dict.fromkeys(measures, margin)
    return margins | own
