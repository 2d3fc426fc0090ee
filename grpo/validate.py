"""Everything that can be known to be wrong before a model loads or a worker starts, the cheapest first.

What YAML, names, prompts and file headers tell (`check_inputs`) is told before torch, transformers or Ray are imported;
then comes what needs their classes, without weights (`check_run`).
"""

from __future__ import annotations

import difflib
import importlib.util
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from rich.console import Console

from blip3o_grpo.configs import ConfigError, RewardSection, RunConfig
from blip3o_grpo.configs.gold import FEWEST_PROMPTS
from blip3o_grpo.configs.loader import exists
from blip3o_grpo.configs.names import HUB_NAME, SHIPPED
from blip3o_grpo.configs.shipped import missing_hint
from blip3o_grpo.planning import check_layout, check_placement
from blip3o_grpo.planning.guidance import check_guidance
from blip3o_grpo.planning.pictures import check_pictures
from blip3o_grpo.policies import CheckpointError, PromptEncoder, PromptError
from blip3o_grpo.policies.kinds import KINDS, check_kind
from blip3o_grpo.rewards import RewardError, RewardSpec, declared, find_reward
from blip3o_grpo.rollout import Prompt, load_prompts
from blip3o_grpo.rollout.texts import encode_texts, load_texts, text_file
from blip3o_grpo.rollout.weights.path import check_builds
from blip3o_grpo.run.folder import RunFolder
from blip3o_grpo.terminal import show


@dataclass(frozen=True)
class CheckedRun:
    """A configuration whose files, prompts and rewards were found to fit together."""

    config: RunConfig
    folder: RunFolder
    policy_path: Path
    train_prompts: list[Prompt]
    heldout_prompts: list[Prompt]


def check_run(config: RunConfig) -> CheckedRun:
    """Check everything a run needs; models are built without weights.

    Raises:
        ConfigError, CheckpointError, PromptError, RewardError: the first mistake, naming its file, key or prompt.
    """
    run = check_inputs(config)
    check_models(run)
    return run


def check_models(run: CheckedRun) -> None:
    """What only the libraries' own classes tell: shapes of tensors, noise levels, memory of GPUs, builds for CPUs.

    Raises:
        ConfigError, CheckpointError: the first mistake.
    """
    KINDS[run.config.policy.type].check(run.policy_path)
    check_guidance(run.config, run.policy_path)
    check_placement(run.config, run.policy_path)
    check_builds(run.config)


def check_inputs(config: RunConfig) -> CheckedRun:
    """Check run folder, rewards, checkpoint headers and every prompt without importing a large library.

    A reward in an environment of its own is the exception: Ray checks that.

    Raises:
        ConfigError, CheckpointError, PromptError, RewardError: the first mistake, naming its file, key or prompt.
    """
    folder = RunFolder(config.run_dir)
    config = config.model_copy(update={"run_dir": str(folder.path)})  # workers have another working directory
    folder.check(config)
    check_loggers(config)
    check_layout(config)
    check_rewards(config)
    config = config.model_copy(update={"rewards": tuple(map(with_guard, config.rewards))})
    policy_path = policy_of(config)
    encoder = KINDS[config.policy.type].prompts(policy_path, plain=True)
    train, heldout = prompts_of(config, "train"), prompts_of(config, "heldout")
    for file, prompts in ((config.prompts.train, train), (config.prompts.heldout, heldout)):
        check_prompts(prompts, file, encoder, config)
    if len(train) < config.rollout.prompts_per_step:
        raise ConfigError(
            f"{config.prompts.train}: {len(train)} prompts cannot fill a step of "
            f"rollout.prompts_per_step={config.rollout.prompts_per_step} different prompts"
        )
    check_choice(config, train)
    check_texts(config, encoder)
    check_reference(config, heldout)
    check_gold_prompts(config, heldout)
    check_pictures(config, policy_path, heldout)
    return CheckedRun(config, folder, policy_path, train, heldout)


def check_texts(config: RunConfig, encoder: PromptEncoder) -> None:
    """The texts of `trainer.text_kl` can be read, by the policy too, and fill a step.

    Raises:
        PromptError: a text or their file.
        ConfigError: there are too few.
    """
    section = config.trainer.text_kl
    if section is None:
        return
    try:
        texts = load_texts(section.texts)
    except PromptError as error:
        raise PromptError(f"trainer.text_kl.texts: {error}") from None
    encode_texts(texts, encoder, str(text_file(section.texts)))
    if len(texts) < section.texts_per_step:
        raise ConfigError(
            f"trainer.text_kl.texts_per_step={section.texts_per_step}: {text_file(section.texts)} holds {len(texts)} "
            f"texts; give {len(texts) // config.cluster.trainers * config.cluster.trainers} or less"
        )


def check_reference(config: RunConfig, heldout: Sequence[Prompt]) -> None:
    """The first evaluation draws as many images as the rewards need that compare with the starting policy's.

    Raises:
        ConfigError: naming the keys that decide how many.
    """
    section = config.evaluation
    drawn = min(section.num_prompts, len(heldout)) * section.images_per_prompt
    for reward in config.rewards:
        least = 0 if reward.runtime_env else find_reward(reward.target, reward.folder).min_reference_images
        if drawn < least:
            raise ConfigError(
                f"reward {reward.name!r} needs at least {least} images of the starting policy; evaluation.num_prompts="
                f"{section.num_prompts} and evaluation.images_per_prompt={section.images_per_prompt} give {drawn} "
                f"(there are {len(heldout)} held-out prompts)"
            )


def check_gold_prompts(config: RunConfig, heldout: Sequence[Prompt]) -> None:
    """Gold is no trained reward under another name, and scores enough prompts for a fall to be told from noise.

    Raises:
        ConfigError: naming the reward.
    """
    paid = {_what_it_is(reward): reward.name for reward in config.rewards if reward.weight}
    prompts = heldout[: config.evaluation.num_prompts]
    for reward in (reward for reward in config.rewards if reward.name in config.guards.gold):
        if other := paid.get(_what_it_is(reward)):
            raise ConfigError(
                f"guards.gold: reward {reward.name!r} is what the run trains on as {other!r}; name one that differs in "
                "type or options"
            )
        if reward.runtime_env:
            continue
        spec = find_reward(reward.target, reward.folder)
        scored = sum(spec.applies(prompt.text, prompt.metadata) for prompt in prompts)
        if scored < FEWEST_PROMPTS:
            needs = f"; it needs {spec.needs}" if scored < len(prompts) else ""
            raise ConfigError(
                f"guards.gold: reward {reward.name!r} scores {scored} of the {len(prompts)} held-out prompts that are "
                f"evaluated, and a fall shows on {FEWEST_PROMPTS} or more{needs}"
            )


def _what_it_is(reward: RewardSection) -> str:
    return repr((reward.target, reward.folder, reward.options))


def policy_of(config: RunConfig) -> Path:
    """Folder of the policy, its headers checked.

    Raises:
        CheckpointError: also says where a path that is not there was looked for.
    """
    try:
        check_kind(config.policy.path, config.policy.type)
        return KINDS[config.policy.type].check_headers(config.policy.path)
    except CheckpointError as error:
        if config.policy.path in SHIPPED or exists(config.policy.path) or HUB_NAME.fullmatch(config.policy.path):
            raise
        raise CheckpointError(f"policy.path: {error}; {missing_hint(config.policy.path)}") from None


def prompts_of(config: RunConfig, kind: Literal["train", "heldout"]) -> list[Prompt]:
    """The prompts of `prompts.train` or `prompts.heldout`.

    Raises:
        PromptError: also says where a path that is not there was looked for, and which file there has a similar name.
    """
    file = getattr(config.prompts, kind)
    try:
        return load_prompts(file)
    except PromptError as error:
        if exists(file):
            raise
        folder = Path(file).parent
        names = (
            [path.name for path in folder.iterdir() if path.is_file()]
            if exists(str(folder)) and folder.is_dir()
            else []
        )
        near = difflib.get_close_matches(Path(file).name, names, n=1)
        hint = f"did you mean {near[0]}?" if near else missing_hint(file)
        raise PromptError(f"prompts.{kind}: {error}; {hint}") from None


def check_loggers(config: RunConfig) -> None:
    """What `report_to` names is installed.

    Raises:
        ConfigError: naming the package that is not.
    """
    for name in config.report_to:
        if importlib.util.find_spec(name) is None:
            raise ConfigError(f"report_to: {name} is not installed here; `pip install {name}`, or leave it out")


def check_rewards(config: RunConfig) -> None:
    """Every reward's name or `module:name` can be found, and takes the options it is given.

    A reward in its own environment may not be importable here: only its environment is checked, the rest when its
    workers start.
    """
    for reward in config.rewards:
        if reward.runtime_env:
            from blip3o_grpo.rollout.workers.environments import check_environment

            check_environment(reward)
        else:
            find_checked(reward)
    check_outcome(config)


def check_outcome(config: RunConfig) -> None:
    """What `rollout.dynamic_sampling` takes for right or wrong is 0 or 1, as far as the reward says so.

    Raises:
        ConfigError: naming the reward and what to give.
    """
    section = config.rollout.dynamic_sampling
    if section is None:
        return
    reward = next(reward for reward in config.rewards if reward.name == section.outcome)
    if reward.runtime_env:
        return
    zero_or_one = find_reward(reward.target, reward.folder).is_outcome(reward.options)
    if zero_or_one is False and section.right is None:
        strict = "the reward options: {score: strict}, or " if reward.target == "geneval" else ""
        raise ConfigError(
            f"rollout.dynamic_sampling.outcome: the scores of reward {reward.name!r} are graded, and an outcome is "
            f"right (1) or wrong (0); give {strict}rollout.dynamic_sampling.right, such as 0.99, from which on an "
            "image is right"
        )
    if zero_or_one and section.right is not None and not 0 < section.right <= 1:
        raise ConfigError(
            f"rollout.dynamic_sampling.right={section.right:g}: reward {reward.name!r} says 0 or 1, so "
            f"{'no image' if section.right > 1 else 'every image'} would be right; leave it out"
        )


def check_choice(config: RunConfig, train: Sequence[Prompt]) -> None:
    """Curriculum and dynamic sampling have prompts to choose from, and the outcome applies to some.

    Raises:
        ConfigError: naming the key.
    """
    rollout, file = config.rollout, config.prompts.train
    for key in ("curriculum", "dynamic_sampling"):
        if getattr(rollout, key) and len(train) == rollout.prompts_per_step:
            raise ConfigError(
                f"rollout.{key}: every step has all {len(train)} prompts of {file} "
                f"(rollout.prompts_per_step={rollout.prompts_per_step}), so there are no others; leave it out, or give "
                "more prompts"
            )
    if section := rollout.dynamic_sampling:
        reward = next(reward for reward in config.rewards if reward.name == section.outcome)
        if reward.runtime_env:
            return
        spec = find_reward(reward.target, reward.folder)
        if not any(spec.applies(prompt.text, prompt.metadata) for prompt in train):
            raise ConfigError(
                f"rollout.dynamic_sampling.outcome: reward {reward.name!r} applies to no prompt of {file} (it needs "
                f"{spec.needs}), so no group would be all right or all wrong"
            )


def find_checked(reward: RewardSection) -> RewardSpec:
    """A reward that was found and takes its options; says which of two files of one name was taken.

    Raises:
        RewardError: it was not found, or does not take them.
    """
    spec = find_reward(reward.target, reward.folder)
    spec.check_options(reward.options)
    if spec.note:
        _say_once(spec.note)
    return spec


@cache
def _say_once(note: str) -> None:
    """However many runs of a study are checked."""
    show(Console(stderr=True), ("warning: ", "bold yellow"), note)


def with_guard(reward: RewardSection) -> RewardSection:
    """The section with what the reward declares, unless it says so itself."""
    if reward.guard is None and declared(reward.target, reward.folder).is_guard:
        return reward.model_copy(update={"guard": True})
    return reward


def check_prompts(prompts: list[Prompt], file: str, encoder: PromptEncoder, config: RunConfig) -> None:
    """Every prompt fits the model's context, no reward refuses it, and at least one applies to it.

    What rewards warn of is printed, each sentence once.

    Raises:
        PromptError: naming file and prompt.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.filterwarnings("always", category=UserWarning)
        _check_each(prompts, file, encoder, config)
    for warning in caught:
        _say_once(f"{file}: {warning.message}")


def _check_each(prompts: list[Prompt], file: str, encoder: PromptEncoder, config: RunConfig) -> None:
    here = {r.name: find_reward(r.target, r.folder) for r in config.rewards if not r.runtime_env}
    for prompt in prompts:
        try:
            encoder.encode(prompt.text)
        except PromptError as error:
            raise PromptError(f"{file}: {error}") from None
        for reward in config.rewards:
            if reward.name in here:
                try:
                    here[reward.name].check_prompt(prompt.text, prompt.metadata, reward.options)
                except RewardError as error:
                    raise PromptError(f"{file}: {prompt.text!r}: {error} (reward {reward.name!r})") from None
        if all(r.name in here and not here[r.name].applies(prompt.text, prompt.metadata) for r in config.rewards):
            needs = "; ".join(dict.fromkeys(f"{name} needs {spec.needs}" for name, spec in here.items()))
            raise PromptError(f"{file}: no reward applies to {prompt.text!r}: {needs}")
