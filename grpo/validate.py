"""Everything that can be known to be wrong before a model loads or a worker starts."""

from __future__ import annotations

import importlib.util
import warnings
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.text import Text

from blip3o_grpo.configs import ConfigError, RunConfig
from blip3o_grpo.planning import check_placement
from blip3o_grpo.policies import BLIP3oNext, PromptEncoder, PromptError, resolve_policy_path
from blip3o_grpo.rewards import RewardError, check_options, check_prompt, is_applicable, prompt_needs, reward_class
from blip3o_grpo.rollout import Prompt, load_prompts
from blip3o_grpo.rollout.weights.path import check_builds
from blip3o_grpo.rollout.workers.environments import check_environment
from blip3o_grpo.run.folder import RunFolder


@dataclass(frozen=True)
class CheckedRun:
    """A configuration whose files, prompts and rewards were found to fit together."""

    config: RunConfig
    folder: RunFolder
    policy_path: Path
    train_prompts: list[Prompt]
    heldout_prompts: list[Prompt]


def check_run(config: RunConfig) -> CheckedRun:
    """Check run folder, checkpoint files, reward names and every prompt; loads a tokenizer but no weights.

    Raises:
        ConfigError, CheckpointError, PromptError, RewardError: the first mistake, naming its file, key or prompt.
    """
    folder = RunFolder(config.run_dir)
    config = config.model_copy(update={"run_dir": str(folder.path)})  # workers have another working directory
    folder.check(config)
    policy_path = resolve_policy_path(config.policy.path)
    encoder = PromptEncoder.from_pretrained(policy_path)
    BLIP3oNext.check(policy_path)
    check_placement(config, policy_path)
    check_builds(config)
    check_rewards(config)
    check_loggers(config)
    train = load_prompts(config.prompts.train)
    heldout = load_prompts(config.prompts.heldout)
    for file, prompts in ((config.prompts.train, train), (config.prompts.heldout, heldout)):
        check_prompts(prompts, file, encoder, config)
    if len(train) < config.rollout.prompts_per_step:
        raise ConfigError(
            f"{config.prompts.train}: {len(train)} prompts cannot fill a step of "
            f"rollout.prompts_per_step={config.rollout.prompts_per_step} different prompts"
        )
    return CheckedRun(config, folder, policy_path, train, heldout)


def check_loggers(config: RunConfig) -> None:
    """What `report_to` names is installed.

    Raises:
        ConfigError: naming the package that is not.
    """
    for name in config.report_to:
        if importlib.util.find_spec(name) is None:
            raise ConfigError(f"report_to: {name} is not installed here; `pip install {name}`, or leave it out")


def check_rewards(config: RunConfig) -> None:
    """Every reward's name or `module:Class` can be found, and takes the options it is given.

    A reward in its own environment may not be importable here: only its environment is checked, the rest when its
    workers start.
    """
    for reward in config.rewards:
        if reward.runtime_env:
            check_environment(reward)
        else:
            check_options(reward_class(reward.target), reward.options, reward.name)


def check_prompts(prompts: list[Prompt], file: str, encoder: PromptEncoder, config: RunConfig) -> None:
    """Every prompt fits the model's context, no reward refuses it, and at least one applies to it.

    What rewards warn of is printed, each sentence once.

    Raises:
        PromptError: naming file and prompt.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        _check_each(prompts, file, encoder, config)
    for text in dict.fromkeys(str(warning.message) for warning in caught):
        Console(stderr=True).print(Text.assemble(("warning: ", "bold yellow"), f"{file}: {text}"), soft_wrap=True)


def _check_each(prompts: list[Prompt], file: str, encoder: PromptEncoder, config: RunConfig) -> None:
    for prompt in prompts:
        try:
            encoder.encode(prompt.text)
        except PromptError as error:
            raise PromptError(f"{file}: {error}") from None
        for reward in config.rewards:
            if not reward.runtime_env:
                try:
                    check_prompt(reward.target, prompt.text, prompt.metadata, reward.options)
                except RewardError as error:
                    raise PromptError(f"{file}: {prompt.text!r}: {error} (reward {reward.name!r})") from None
        if not any(
            reward.runtime_env or is_applicable(reward.target, prompt.text, prompt.metadata)
            for reward in config.rewards
        ):
            needs = "; ".join(dict.fromkeys(f"{r.name} needs {prompt_needs(r.target)}" for r in config.rewards))
            raise PromptError(f"{file}: no reward applies to {prompt.text!r}: {needs}")
