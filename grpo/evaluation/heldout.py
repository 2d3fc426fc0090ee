"""Held-out evaluation: the same prompts, seeds and noise every time, so two evaluations differ only by the policy.

A reward's value is the mean over prompts of the mean over a prompt's images; its interval is that of
`blip3o_grpo.evaluation.statistics`. Rewards that declare tags are reported per tag too, and as `NAME/overall`: the
unweighted mean of the tags, as in published tables.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from PIL import Image
from pydantic import AfterValidator, TypeAdapter

from blip3o_grpo.configs import RewardSection, RunConfig
from blip3o_grpo.configs.atomic import staged_folder, write_atomically
from blip3o_grpo.evaluation.grids import save_grid
from blip3o_grpo.evaluation.statistics import Estimate, estimate
from blip3o_grpo.rewards import TagTable, declared
from blip3o_grpo.rollout import Prompt, RolloutError, RolloutGroup
from blip3o_grpo.rollout.messages import Draw
from blip3o_grpo.run.files import read_object
from blip3o_grpo.run.folder import RunFolder

if TYPE_CHECKING:
    from blip3o_grpo.rollout import RolloutPipeline

HELDOUT_STEP = "eval"
"""Name of the step from which held-out rollouts have their seeds."""


@dataclass(frozen=True)
class Evaluation:
    """Held-out result of one policy."""

    step: int
    num_prompts: int
    images_per_prompt: int
    means: dict[str, float]
    """Reward name to mean over the prompts it applies to (a reward that applies to none is left out)."""
    intervals: dict[str, tuple[float, float] | None]
    """95 % interval of each mean; None: too few prompts for one."""
    per_prompt: dict[str, dict[str, float | None]] = field(repr=False)
    """Prompt id to reward name to mean over that prompt's images."""
    tags: dict[str, dict[str, tuple[float, float | None, float | None]]] = field(default_factory=dict)
    """Name of a reward that declares tags, to tag to mean and 95 % interval."""
    tag_prompts: dict[str, dict[str, list[str]]] = field(default_factory=dict, repr=False)
    """The same by tag to the ids of its prompts; runs of older versions did not store it."""

    def save(self, path: Path) -> None:
        """Write as JSON, whole or not at all; `estimates` says of every mean its interval and n once more, together."""
        estimates = {name: asdict(found) for name, found in self.estimates().items()}
        write_atomically(path, json.dumps({**asdict(self), "estimates": estimates}, indent=1) + "\n")

    @classmethod
    def load(cls, path: Path) -> Evaluation:
        """Read what `save` wrote.

        Raises:
            RunFileError: the file is no evaluation.
        """
        return EVALUATION.validate_python(read_object(path, EVALUATION))  # JSON has no tuples

    def estimates(self) -> dict[str, Estimate]:
        """Every mean with its interval and number of prompts: `NAME`, `NAME/overall`, `NAME/TAG`."""
        found = {}
        for name, mean in self.means.items():
            low, high = self.intervals[name] or (None, None)
            found[name] = Estimate(mean, low, high, self._count(name))
        for name, by_tag in self.tags.items():
            prompts = self.tag_prompts.get(name, {})
            for tag, (mean, low, high) in by_tag.items():
                found[f"{name}/{tag}"] = Estimate(mean, low, high, len(prompts[tag]) if tag in prompts else None)
        return found

    def _count(self, name: str) -> int | None:
        """Prompts with a score of this reward; None where they were not stored."""
        name = name.removesuffix("/overall")
        return sum(row.get(name) is not None for row in self.per_prompt.values()) or None


def _complete(evaluation: Evaluation) -> Evaluation:
    for reward in evaluation.means:
        if reward not in evaluation.intervals:
            raise ValueError(f"'intervals' lacks {reward!r}, which 'means' has")
    if not 0 <= evaluation.step < 2**53:
        raise ValueError(f"'step' is {evaluation.step}; give 0 or more")
    return evaluation


EVALUATION = TypeAdapter(Annotated[Evaluation, AfterValidator(_complete)])
"""What a file of an evaluation holds."""


def summarise(groups: Sequence[RolloutGroup], rewards: Sequence[RewardSection], step: int) -> Evaluation:
    """Means and intervals of scored groups."""
    per_prompt = {
        group.prompt.id: {
            reward.name: _mean(rollout.rewards[reward.name] for rollout in group.rollouts) for reward in rewards
        }
        for group in groups
    }
    return _evaluation(groups, rewards, per_prompt, step)


def paired_difference(
    first: Sequence[RolloutGroup], second: Sequence[RolloutGroup], rewards: Sequence[RewardSection]
) -> Evaluation:
    """An evaluation of `first - second`, prompt by prompt; a prompt that one of them has no score for is left out.

    Its intervals are those of the differences.
    """
    before, after = (summarise(groups, rewards, step=0).per_prompt for groups in (second, first))
    per_prompt = {
        prompt: {name: _difference(value, before.get(prompt, {}).get(name)) for name, value in row.items()}
        for prompt, row in after.items()
    }
    return _evaluation(first, rewards, per_prompt, step=0, paired=True)


def _evaluation(
    groups: Sequence[RolloutGroup],
    rewards: Sequence[RewardSection],
    per_prompt: dict[str, dict[str, float | None]],
    step: int,
    paired: bool = False,
) -> Evaluation:
    columns: dict[str, list[Sequence[float]]] = {}
    tags: dict[str, dict[str, Estimate]] = {}
    tag_prompts: dict[str, dict[str, list[str]]] = {}
    for reward in rewards:
        values = [row[reward.name] for row in per_prompt.values() if row[reward.name] is not None]
        if not values:
            continue
        columns[reward.name] = [values]
        table = declared(reward.target, reward.folder).tags
        if table is not None:
            ids = tag_prompts[reward.name] = _by_tag(groups, per_prompt, reward.name, table)
            by_tag = {tag: [per_prompt[prompt][reward.name] for prompt in members] for tag, members in ids.items()}
            columns[f"{reward.name}/overall"] = list(by_tag.values())
            tags[reward.name] = {tag: estimate(values, paired=paired) for tag, values in by_tag.items()}
    estimates = {name: estimate(*strata, paired=paired) for name, strata in columns.items()}
    return Evaluation(
        step=step,
        num_prompts=len(groups),
        images_per_prompt=len(groups[0].rollouts),
        means={name: found.mean for name, found in estimates.items()},
        intervals={name: None if found.low is None else (found.low, found.high) for name, found in estimates.items()},
        per_prompt=per_prompt,
        tags={
            name: {tag: (found.mean, found.low, found.high) for tag, found in by_tag.items()}
            for name, by_tag in tags.items()
        },
        tag_prompts=tag_prompts,
    )


def _by_tag(
    groups: Sequence[RolloutGroup],
    per_prompt: Mapping[str, Mapping[str, float | None]],
    name: str,
    table: TagTable,
) -> dict[str, list[str]]:
    """Ids of the prompts that a reward scored, by tag: the declared ones in their order, then others."""
    found: dict[str, list[str]] = {tag: [] for tag in table.titles}
    for group in groups:
        if per_prompt[group.prompt.id][name] is not None:
            found.setdefault(table.tag(group.prompt.metadata), []).append(group.prompt.id)
    return {tag: members for tag, members in found.items() if members}


def _difference(first: float | None, second: float | None) -> float | None:
    return None if first is None or second is None else first - second


def _mean(scores: Any) -> float | None:
    known = [score for score in scores if score is not None]
    return float(np.mean(known)) if known else None


def collect_heldout(
    pipeline: RolloutPipeline,
    prompts: Sequence[Prompt],
    config: RunConfig,
    *,
    explain: bool = False,
    progress: Callable[[int], None] | None = None,
) -> tuple[RolloutGroup, ...]:
    """The held-out groups under the weights the pipeline has now, with explanations of their scores if asked for.

    `progress` is told how many prompts are done.

    Raises:
        RolloutError: a stage failed, or every group was dropped because a reward failed on it.
    """
    section = config.evaluation
    batch = pipeline.collect(
        list(prompts[: section.num_prompts]),
        step=HELDOUT_STEP,
        group_size=section.images_per_prompt,
        num_diffusion_steps=section.num_diffusion_steps,
        draw=evaluation_draw(config),
        explain=explain,
        progress=progress,
    )
    return _some(batch.groups)


def evaluation_draw(config: RunConfig) -> Draw | None:
    """How evaluations draw tokens; None: as in training."""
    section = config.evaluation
    draw = Draw(section.temperature or config.rollout.temperature, section.top_p, section.top_k)
    return None if draw == Draw(config.rollout.temperature) else draw


def _some(groups: Sequence[RolloutGroup]) -> Sequence[RolloutGroup]:
    """The groups, unless none is left to evaluate."""
    if not groups:
        raise RolloutError("held-out evaluation: every group was dropped because a reward failed on it")
    return groups


def evaluate(
    pipeline: RolloutPipeline,
    prompts: Sequence[Prompt],
    config: RunConfig,
    *,
    name: str,
    step: int,
    folder: RunFolder,
    progress: Callable[[int], None] | None = None,
) -> Evaluation:
    """Evaluate the pipeline's weights and save `evaluations/NAME.json` and `grids/NAME.png`."""
    groups = collect_heldout(pipeline, prompts, config, progress=progress)
    return save_evaluation(groups, config, name=name, step=step, folder=folder)


def save_evaluation(
    groups: Sequence[RolloutGroup], config: RunConfig, *, name: str, step: int, folder: RunFolder
) -> Evaluation:
    """Summarise scored held-out groups; writes the files of `evaluate`.

    Raises:
        RolloutError: there are none.
    """
    evaluation = summarise(_some(groups), config.rewards, step)
    shown = groups[: config.evaluation.grid_prompts]
    save_grid(folder.grids / f"{name}.png", shown)
    save_images(folder.evaluations / f"{name}-images", shown)
    evaluation.save(folder.evaluations / f"{name}.json")
    return evaluation


def save_images(folder: Path, groups: Sequence[RolloutGroup]) -> None:
    """Write every image of these groups as a PNG, and `index.jsonl`: prompt, files and scores of each group."""
    with staged_folder(folder) as staged:
        lines = []
        for index, group in enumerate(groups):
            files = [f"{index:03d}-{member}.png" for member in range(len(group.rollouts))]
            for file, rollout in zip(files, group.rollouts, strict=True):
                Image.fromarray(rollout.image).save(staged / file)
            rewards = {
                name: [rollout.rewards[name] for rollout in group.rollouts] for name in group.rollouts[0].rewards
            }
            record = {"prompt_id": group.prompt.id, "prompt": group.prompt.text, "images": files, "rewards": rewards}
            lines.append(json.dumps(record, ensure_ascii=False) + "\n")
        (staged / "index.jsonl").write_text("".join(lines), encoding="utf-8")


def heldout_metrics(evaluation: Evaluation) -> dict[str, float]:
    """Metric names of an evaluation's means, with their intervals."""
    estimates = evaluation.estimates()
    metrics = {f"heldout/{name}": value for name, value in evaluation.means.items()}
    return metrics | {
        k: v for name in evaluation.means for k, v in estimates[name].as_metrics(f"heldout/{name}").items()
    }
