"""Everything that can be known to be wrong before a model loads or a worker starts."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import torch

from configs import ConfigError, RunConfig
from grpo.checkpoints import RunFolder
from policies import BLIP3oNext, PromptEncoder, PromptError, load_config, resolve_policy_path
from policies.blip3o_next import diffusion_folder
from policies.checkpoint import Weights, load_part
from rewards import RewardError, check_options, check_prompt, is_applicable, reward_class
from rollout import Prompt, load_prompts
from rollout.environments import check_environment

ALL_PARTS = ("ar", "head", "vision")
"""Training needs the first two; the last is carried over into the trained policy's folder."""


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
    check_weights(policy_path)
    check_rewards(config)
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


class _Headers(Weights):
    """Weights that hand out shapes instead of values."""

    def load(self, names: Iterable[str]) -> dict[str, torch.Tensor]:
        with ExitStack() as stack:
            files = {file: stack.enter_context(self._open(file)) for file in set(self.files.values())}
            shapes = {name: files[self.files[name]].get_slice(name).get_shape() for name in names}
        return {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}


def check_weights(policy_path: Path) -> None:
    """Every tensor of the checkpoint is there and has the shape its configuration asks for; reads file headers only.

    Raises:
        CheckpointError: listing missing, unexpected and misshapen keys.
    """
    headers, config = _Headers(policy_path), load_config(policy_path)
    with torch.device("meta"):
        skeleton = BLIP3oNext(config, diffusion_folder(policy_path, config), ALL_PARTS, None)
    for part, module in skeleton.parts().items():
        load_part(headers, part, module)


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

    Raises:
        PromptError: naming file and prompt.
    """
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
            raise PromptError(
                f"{file}: no reward ({', '.join(r.name for r in config.rewards)}) applies to {prompt.text!r}; "
                'the OCR reward needs the words to write in double quotes, as in: a sign that says "TAXI"'
            )
