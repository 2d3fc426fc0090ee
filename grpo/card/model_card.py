"""The trained policy's model card in the form of the Hugging Face hub: `README.md` beside its weights.

Paths of this machine stay out of it, as it travels with the weights; the run folder is called by its name. What is not
known is not claimed: the licence is that of the starting policy, which whoever publishes must look up.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from blip3o_grpo.card.card import Card
from blip3o_grpo.card.measures import DIVERSITY
from blip3o_grpo.card.plan import HELDOUT, REWORDED
from blip3o_grpo.card.verdicts import MEANINGS, Row, summary
from blip3o_grpo.configs import RunConfig
from blip3o_grpo.configs.atomic import write_atomically
from blip3o_grpo.configs.names import HUB_NAME
from blip3o_grpo.report.page import command_line
from blip3o_grpo.run.folder import RunFolder

FILE = "README.md"
_QUOTED = re.compile(r"(?<=['\"])(~[\w.-]*)?/[^'\"\n]+(?=['\"])")
"""A whole path in quotation marks, which may hold spaces."""
_PLAIN = re.compile(r"(?<![\w/:.~)])(~[\w.-]*)?/[^\s'\":;,)\]}]+")
"""One without. What follows a word or `https:` is no whole path, nor is `ORG/NAME`."""


def write_model_card(folder: RunFolder, card: Card, config: RunConfig) -> Path:
    """Write `RUN/policy/README.md` and return its path.

    Raises:
        StorageError: the disk is full, for example.
    """
    target = folder.policy / FILE
    write_atomically(target, model_card(card, config))
    return target


def model_card(card: Card, config: RunConfig) -> str:
    """The text of `README.md`.

    Args:
        card: what was measured.
        config: of the run.
    """
    name = Path(card.run).name
    known = [card.run, *_whole_paths(config.model_dump(mode="json"))]
    start = _public(card.start)
    trained = [
        f"{reward.name} ({reward.target}, weight {reward.weight:g})" for reward in config.rewards if reward.weight
    ]
    data = ModelCardData(
        model_name=name,
        base_model=card.start if HUB_NAME.fullmatch(card.start) else None,
        library_name="blip3o-grpo",
        pipeline_tag="text-to-image",
        tags=["blip3o-next", "grpo", "reinforcement-learning"],
        eval_results=[_result(row, Path(card.heldout).name) for row in card.rows],
    )
    rates = {"tokens": f"{config.trainer.learning_rate:g}, KL coefficient {config.trainer.beta:g}"}
    rates["head"] = f"{config.head.learning_rate:g}, {config.head.method.type}"
    learnt = " and ".join(f"{half} (learning rate {rates[half]})" for half in config.learn)
    lines = [
        "---",
        data.to_yaml(),
        "---",
        "",
        f"# {name}",
        "",
        f"A BLIP3o-NEXT text-to-image policy: `{start}` after {card.steps} steps of GRPO (blip3o-grpo) on "
        f"{', '.join(trained)}; what learnt: {learnt}; {config.rollout.images_per_step} images of "
        f"{config.rollout.prompts_per_step} prompts a step, seed {config.seed}. It is in the released checkpoint "
        "layout. Its licence is that of the starting policy.",
        "",
        "## What training changed",
        "",
        f"{summary(card.rows)}. Both policies drew {card.images_per_prompt} images of each prompt, with the same seeds "
        "and noise; in brackets the 95 % interval over n prompts, texts or questions, of a change paired by them.",
        "",
        "| measure | trained on | start | trained | change | margin | verdict |",
        "|---|---|---|---|---|---|---|",
        *(_line(row) for row in card.rows),
        "",
        *(f"- **{verdict}**: {meaning}." for verdict, meaning in MEANINGS.items()),
        "",
        *_left_out(without_folders(sentence, known) for sentence in card.left_out),
        "## To repeat it",
        "",
        "In the folder that holds the run's:",
        "",
        "```bash",
        command_line("train", f"{name}/config.yaml", f"run_dir={name}-again"),
        repeat_command(_named(card), name),
        command_line("card", "--verify", f"{name}/card.json", name),
        "```",
        "",
        f"SHA-256 of the weights (names and bytes of all safetensors files): `{card.policies['trained']}`; of those it "
        f"began with: `{card.policies['start']}`. Made with "
        f"{', '.join(f'{package} {version}' for package, version in card.versions.items())}.",
    ]
    return "\n".join(lines) + "\n"


def repeat_command(card: Card, run: str) -> str:
    """The command that makes a card like this one of a run folder."""
    request = card.request
    words = ["card", run]
    if request.suites is not None:
        words += ["--suites", ",".join(request.suites)]
    words += [word for margin in request.margins or () for word in ("--margin", margin)]
    words += [word for override in request.overrides or () for word in ("--set", override)]
    return command_line(*words)


def without_folders(text: str, known: Iterable[str] = ()) -> str:
    """The text with every whole path in it replaced by the path's last part.

    Args:
        text: anything.
        known: paths that it may name, which are found whatever characters are in them.
    """
    for path in sorted(known, key=len, reverse=True):
        if Path(path).is_absolute():
            text = text.replace(path, Path(path).name)
    for pattern in (_QUOTED, _PLAIN):
        text = pattern.sub(lambda found: Path(found[0]).name, text)
    return text


def _whole_paths(values: Any) -> Iterator[str]:
    """Whole paths anywhere in a configuration."""
    if isinstance(values, str) and Path(values).is_absolute():
        yield values
    elif isinstance(values, dict | list):
        for inside in values.values() if isinstance(values, dict) else values:
            yield from _whole_paths(inside)


def _named(card: Card) -> Card:
    """The card with files and folders in its settings by their names alone."""
    overrides = []
    for override in card.request.overrides or ():
        key, equals, value = override.partition("=")
        overrides.append(f"{key}{equals}{without_folders(value, [value])}")
    return replace(card, request=replace(card.request, overrides=overrides))


def _public(start: str) -> str:
    return start if HUB_NAME.fullmatch(start) else Path(start).name


def _line(row: Row) -> str:
    weight = f"× {row.weight:g}" if row.weight else "no"
    cells = [row.name, weight, str(row.before), str(row.after)]
    change = f"{row.change.mean:+.3f} ({row.change.interval_and_n('+.3f')})"
    if row.lower_is_better:
        cells[0] += " (less is better)"
    return f"| {' | '.join([*cells, change, f'{row.margin:g}', f'**{row.verdict}**'])} |"


def _left_out(sentences: Iterable[str]) -> list[str]:
    lines = [f"- {sentence}." for sentence in sentences]
    return ["Not measured:", "", *lines, ""] if lines else []


def _result(row: Row, heldout: str) -> EvalResult:
    drawn = row.prompts in (HELDOUT, REWORDED)
    return EvalResult(
        task_type="text-to-image" if drawn else "image-text-to-text",
        dataset_type="prompts" if drawn else row.prompts,
        dataset_name=heldout if drawn else f"blip3o-grpo's {row.prompts}",
        dataset_config=row.prompts,
        metric_type=row.measure,
        metric_name="diversity of the images of a prompt" if row.measure == DIVERSITY else row.measure,
        metric_value=round(row.after.mean, 4),
    )
