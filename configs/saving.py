"""Options of `rollout` that make more of each image: which prompts are drawn, and what of the groups is learnt from."""

from __future__ import annotations

import difflib
import math
from collections.abc import Sequence
from typing import Any

from pydantic import Field

from blip3o_grpo.configs.section import Section


class CurriculumSection(Section):
    """Draw prompts more often whose images differ in reward: where all score alike, nothing is learnt.

    Of every prompt the running mean of its groups' standard deviation (of the weighted sum of the rewards) is kept; one
    not drawn yet counts as the mean of those with its `tag`, else of all.
    """

    uniform_share: float = Field(default=0.5, gt=0, lt=1)
    """Share of a step's prompts that come in turn, as without a curriculum, so that every prompt, and every tag, keeps
    at least that share; the others are drawn in proportion to what is kept of them."""
    memory: float = Field(default=0.5, ge=0, lt=1)
    """Share of the old mean that a new group leaves."""

    def in_turn(self, prompts_per_step: int) -> int:
        """How many of a step's prompts come in turn."""
        return math.ceil(round(self.uniform_share * prompts_per_step, 9))


class DynamicSamplingSection(Section):
    """Draw other prompts in place of those whose images are all right or all wrong (DAPO, arXiv 2503.14476)."""

    outcome: str
    """Name of the reward that says right (1) or wrong (0); its weight may be 0."""
    right: float | None = None
    """An image is right from this score on, for rewards in between; None: the scores are 0 and 1, and nothing else."""
    max_rounds: int = Field(default=2, ge=1, le=100)
    """Most times that a step draws again. What still does not differ then is learnt from as it is."""


class ReplaySection(Section):
    """Learn again from groups of earlier steps in which a good completion stood out, instead of drawing new ones.

    Their images count by one ratio for each: the geometric mean over its tokens of the probability now to that when it
    was drawn, cut as `trainer.vllm_importance_sampling_clip_max` says (OP-GRPO, arXiv 2604.04142; GSPO's ratio).
    """

    groups_per_step: int = Field(ge=1)
    """Most groups of a step's `prompts_per_step` that are replayed, each once; fewer while there are too few."""
    max_age: int = Field(default=5, ge=1, le=10_000)
    """Batches of rollouts after which a group is no longer replayed."""


def check_saving(config: Any) -> None:
    """Refuse what cannot act together, or not at all.

    Args:
        config: a `RunConfig`.

    Raises:
        ValueError: naming the key, the reason and what to give instead.
    """
    rollout, names = config.rollout, [reward.name for reward in config.rewards]
    _check_curriculum(rollout.curriculum, rollout.prompts_per_step)
    _check_dynamic(rollout.dynamic_sampling, names)
    _check_band(config)
    size, whole = rollout.subset_size, rollout.group_size
    if size is not None and size >= whole:
        raise ValueError(
            f"rollout.subset_size={size}: a group has {whole} members (rollout.group_size), and the subset is what is "
            f"learnt from of them; give {f'2 to {whole - 1}, or ' if whole > 2 else ''}a larger group"
        )
    for key in ("subset_size", "replay"):
        if getattr(rollout, key) is not None and "head" in config.learn:
            raise ValueError(
                f"rollout.{key}: the diffusion head learns from every image of a step's own rollouts (learn: "
                f"{', '.join(config.learn)}); leave it out, or learn the tokens alone"
            )
    if rollout.replay:
        _check_replay(config)


def _check_curriculum(section: CurriculumSection | None, size: int) -> None:
    if section and section.in_turn(size) == size:
        most = math.floor((size - 1) / size * 100) / 100
        instead = f"{most:g} or less, or more prompts" if most else "more prompts"
        raise ValueError(
            f"rollout.curriculum.uniform_share={section.uniform_share:g}: of rollout.prompts_per_step={size} prompts "
            f"all would come in turn, and none by its spread; give {instead}"
        )


def _check_dynamic(section: DynamicSamplingSection | None, rewards: Sequence[str]) -> None:
    if section and section.outcome not in rewards:
        near = difflib.get_close_matches(section.outcome, rewards, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(rewards)}"
        raise ValueError(f"rollout.dynamic_sampling.outcome: there is no reward {section.outcome!r}; {hint}")


def _check_band(config: Any) -> None:
    trainer = config.trainer
    if trainer.entropy_band is None:
        return
    low, high = trainer.entropy_band
    if not 0 <= low < high:
        raise ValueError(
            f"trainer.entropy_band: {[low, high]} is no band; give [LOW, HIGH] with 0 <= LOW < HIGH (nats)"
        )
    if trainer.use_adaptive_entropy:
        raise ValueError(
            "trainer.entropy_band: use_adaptive_entropy steers entropy_coef already; leave one of them out"
        )
    if not trainer.entropy_coef:
        raise ValueError(
            "trainer.entropy_band: entropy_coef is 0, and it is what pushes the entropy back into the band; give "
            "entropy_coef: 0.01, for example"
        )


def _check_replay(config: Any) -> None:
    replay, ranks = config.rollout.replay, config.cluster.trainers
    groups, share = replay.groups_per_step, config.rollout.prompts_per_step // ranks
    if groups >= config.rollout.prompts_per_step:
        raise ValueError(
            f"rollout.replay.groups_per_step={groups}: of rollout.prompts_per_step={config.rollout.prompts_per_step} "
            f"groups none would be new; give {config.rollout.prompts_per_step - ranks or 'more prompts'}"
            + (" or less" if config.rollout.prompts_per_step > ranks else ", or leave it out")
        )
    if groups % ranks:
        nearest = max(groups // ranks, 1) * ranks
        raise ValueError(
            f"rollout.replay.groups_per_step={groups} does not divide over cluster.trainers={ranks}; "
            + (f"give {nearest}" if nearest < share * ranks else "a rank has one group only, so leave it out")
        )
    if section := config.rollout.curriculum:
        most = share - math.ceil(section.in_turn(config.rollout.prompts_per_step) / ranks)
        if groups // ranks > most:
            instead = f"give {most * ranks} or less" if most else "leave one of the two out"
            raise ValueError(
                f"rollout.replay.groups_per_step={groups}: with rollout.curriculum.uniform_share="
                f"{section.uniform_share:g} they would take places of the prompts that come in turn; {instead}"
            )
    if config.trainer.loss_type == "vespo":
        raise ValueError(
            "rollout.replay: a replayed image has one weight for all of its tokens, and trainer.loss_type=vespo "
            "multiplies the weights of all tokens; leave one of the two out"
        )
    if config.rollout.max_staleness:
        raise ValueError(
            "rollout.replay: with rollout.max_staleness=1 new rollouts are behind the policy too, and are corrected "
            "token by token; give one of the two"
        )
