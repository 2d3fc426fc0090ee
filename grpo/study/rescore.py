"""`blip3o-grpo rescore`: score the images a run has recorded with other rewards; what would they have taught?

Needs no policy and no training. A run that keeps all images (`rollout.record_images=all`) answers in full; of one that
keeps each group's best and worst image only those two are scored, and correlations cannot be had.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter, ValidationError
from rich.console import Console

from blip3o_grpo.configs import ConfigError, RewardSection, load_run_config, read_yaml
from blip3o_grpo.configs.atomic import write_atomically
from blip3o_grpo.configs.mistakes import first_mistake
from blip3o_grpo.configs.regular_files import is_regular
from blip3o_grpo.configs.reward_files import find_reward_folders, reward_folder
from blip3o_grpo.evaluation.agreement import PairSummary, RewardSummary, compare_rewards, summarise_reward
from blip3o_grpo.progress import Bar, activity
from blip3o_grpo.rewards import LoadedReward, RewardBatch, load_reward
from blip3o_grpo.rewards.images import open_rgb
from blip3o_grpo.rollout import read_rollouts
from blip3o_grpo.run.files import read_reward_state
from blip3o_grpo.run.folder import RunFolder
from blip3o_grpo.study.results import write_json
from blip3o_grpo.validate import find_checked

IMAGES_PER_CALL = 64


@dataclass(frozen=True)
class Rescored:
    """Recorded groups with new scores and the run's own."""

    records: list[dict[str, Any]]
    """As `read_rollouts` gives them."""
    scores: dict[str, np.ndarray]
    """Reward to `[num_groups, group_size]`, NaN where there is none; new rewards first, then the run's others."""
    recorded: tuple[str, ...]
    """Which of them were recorded during training and not scored again."""
    all_images: bool

    def rewards(self) -> list[RewardSummary]:
        return [summarise_reward(name, scores, self._prompts()) for name, scores in self.scores.items()]

    def pairs(self) -> list[PairSummary]:
        prompts = self._prompts()
        return [compare_rewards(a, b, self.scores[a], self.scores[b], prompts) for a, b in combinations(self.scores, 2)]

    def _prompts(self) -> list[str]:
        return [record["prompt_id"] for record in self.records]


def rescore(
    run_dir: str | Path,
    rewards: Sequence[str] = (),
    sections: Path | None = None,
    console: Console | None = None,
) -> Rescored:
    """Score a run's recorded images.

    Args:
        run_dir: run folder.
        rewards: names of the run's rewards (with their options), registered names, or `module:name`, looked for
            beside the run's recipe and in the working folder.
        sections: YAML file with a list of reward sections, as in a recipe.
        console: where progress goes; None: nowhere.

    Raises:
        ConfigError: no run folder, nothing recorded, or no reward given.
        RewardError: unknown reward or option, or a reward that fails.
    """
    run = RunFolder(run_dir)
    if not is_regular(run.config):
        raise ConfigError(f"{run.path} is not a run folder: it has no config.yaml")
    config = load_run_config(run.config)
    wanted = [*choose_rewards(config.rewards, rewards), *(read_sections(sections) if sections else [])]
    check_sections(wanted)
    records = read_rollouts(run.path)
    if not records:
        raise ConfigError(f"{run.path} has no recorded rollouts (rollout.record_every_steps says how often they are)")
    places, images = load_images(records)
    size = max(len(record["rollouts"]) for record in records)
    scores = {}
    for section in wanted:
        values = score_images(section, run, records, places, images, console or Console(quiet=True))
        table = np.full((len(records), size), np.nan)
        for (group, member), value in zip(places, values, strict=True):
            table[group, member] = np.nan if value is None else value
        scores[section.name] = table
    recorded = tuple(reward.name for reward in config.rewards if reward.name not in scores)
    for name in recorded:
        scores[name] = recorded_scores(records, name, size)
    return Rescored(records, scores, recorded, all("images" in record for record in records))


def choose_rewards(known: Sequence[RewardSection], names: Sequence[str]) -> list[RewardSection]:
    """Sections of the rewards asked for: the run's own where it has one of that name."""
    sections = {reward.name: reward for reward in known}
    folders = [*dict.fromkeys(reward.folder for reward in known if reward.folder), Path.cwd()]
    return [
        sections.get(name) or RewardSection(name=_column(name), type=name, folder=reward_folder(name, folders))
        for name in names
    ]


def read_sections(file: Path) -> list[RewardSection]:
    """Reward sections of a YAML file: a list, or a mapping with the key `rewards`.

    Raises:
        ConfigError: naming the file and what is wrong.
    """
    values = read_yaml(file)
    if isinstance(values, dict):
        values = values.get("rewards")
    find_reward_folders(values, file.resolve().parent)
    try:
        return TypeAdapter(list[RewardSection]).validate_python(values)
    except ValidationError as error:
        raise ConfigError(f"{file}: not a list of reward sections: {first_mistake(error)}") from None


def check_sections(sections: Sequence[RewardSection]) -> None:
    """Every reward can be found and takes its options; names differ.

    Raises:
        ConfigError, RewardError: before any model loads.
    """
    if not sections:
        raise ConfigError("no reward to score with; give --rewards or --config")
    names = [section.name for section in sections]
    repeated = [name for name in names if names.count(name) > 1]
    if repeated:
        raise ConfigError(f"the reward {repeated[0]!r} is asked for twice")
    for section in sections:
        if section.runtime_env:
            raise ConfigError(f"reward {section.name!r} has an environment of its own (runtime_env); rescore has none")
        find_checked(section)


def load_images(records: Sequence[dict[str, Any]]) -> tuple[list[tuple[int, int]], list[np.ndarray]]:
    """(group, member) of every kept image, and the images."""
    files: dict[tuple[int, int], str] = {}
    for group, record in enumerate(records):
        kept = enumerate(record.get("images") or ())
        chosen = ((record[kind]["member"], record[kind]["image"]) for kind in ("best", "worst"))
        files |= {(group, member): file for member, file in (*kept, *chosen)}
    places = sorted(files)
    return places, [np.asarray(open_rgb(Path(files[place]))) for place in places]


def score_images(
    section: RewardSection,
    run: RunFolder,
    records: Sequence[dict[str, Any]],
    places: Sequence[tuple[int, int]],
    images: Sequence[np.ndarray],
    console: Console,
) -> list[float | None]:
    """Scores of all images; a reward that compares with the starting policy gets its memory from the run."""
    with activity(console, f"loading the reward {section.name}"):
        reward = load_reward(section.target, section.options, section.folder)
    batch = RewardBatch(
        list(images),
        [records[group]["prompt"] for group, _ in places],
        [records[group]["metadata"] for group, _ in places],
    )
    if reward.fits_reference:
        state = read_reward_state(run.reward_state) if is_regular(run.reward_state) else {}
        if state.get(section.name):
            reward.instance.load_state_dict(state[section.name])
        else:  # the first recorded step comes nearest to the starting policy
            first = min(record["step"] for record in records)
            reward.instance.fit_reference(batch[: sum(records[group]["step"] == first for group, _ in places)])
    values: list[float | None] = []
    with Bar(console, f"scoring with {section.name}", len(places), unit="image") as bar:
        for part in _calls(reward, places):
            values += reward.score(batch[part], section.name)
            bar.see(len(values))
    return values


def _calls(reward: LoadedReward, places: Sequence[tuple[int, int]]) -> list[slice]:
    """What goes into one call of the reward: a group, if it compares siblings."""
    if reward.kind == "pointwise":
        return [slice(start, start + IMAGES_PER_CALL) for start in range(0, len(places), IMAGES_PER_CALL)]
    starts = [i for i in range(len(places)) if not i or places[i][0] != places[i - 1][0]]
    return [slice(start, end) for start, end in zip(starts, [*starts[1:], len(places)], strict=True)]


def recorded_scores(records: Sequence[dict[str, Any]], name: str, size: int) -> np.ndarray:
    """`[num_groups, size]` scores that training recorded."""
    table = np.full((len(records), size), np.nan)
    for group, record in enumerate(records):
        for member, rollout in enumerate(record["rollouts"]):
            value = rollout["rewards"].get(name)
            table[group, member] = np.nan if value is None else value
    return table


def write_rescored(rescored: Rescored, out: Path) -> Path:
    """Write the summary as JSON and, beside it with the ending `.csv`, the score of every image."""
    summary = {
        "images": "all" if rescored.all_images else "best and worst of each group",
        "num_groups": len(rescored.records),
        "rewards": [asdict(reward) for reward in rescored.rewards()],
        "recorded": rescored.recorded,
        "pairs": [asdict(pair) for pair in rescored.pairs()],
    }
    write_json(out, summary)
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["step", "prompt_id", "prompt", "member", *rescored.scores])
    for group, record in enumerate(rescored.records):
        for member in range(len(record["rollouts"])):
            values = [table[group, member] for table in rescored.scores.values()]
            row = ["" if math.isnan(value) else f"{value:.6g}" for value in values]
            writer.writerow([record["step"], record["prompt_id"], record["prompt"], member, *row])
    write_atomically(out.with_suffix(".csv"), buffer.getvalue())
    return out


def _column(name: str) -> str:
    """A column name for `module:name` or a registered name."""
    last = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name.rpartition(":")[2]).lower()
    return re.sub(r"^[^a-z]+|[^a-z0-9_]", "", last) or "reward"
