"""`blip3o-grpo card RUN`: draws and scores the same images of both policies and writes what it finds."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

from rich.console import Console

from blip3o_grpo.card.card import FILE, Card, weights_digest
from blip3o_grpo.card.measures import Table, make_rows, measure_groups
from blip3o_grpo.card.model_card import write_model_card
from blip3o_grpo.card.page import PICTURES, write_card
from blip3o_grpo.card.plan import HELDOUT, CardPlan, Request, plan_card
from blip3o_grpo.card.reading import read_tables
from blip3o_grpo.evaluation.heldout import Evaluation, save_images
from blip3o_grpo.evaluation.suites import check_model, measure
from blip3o_grpo.progress import activity
from blip3o_grpo.report.page import check_page
from blip3o_grpo.run.environment import versions
from blip3o_grpo.run.files import read_reward_state
from blip3o_grpo.terminal import show


def make_card(run: str | Path, request: Request, out: Path | None = None, console: Console | None = None) -> Card:
    """`find_card`, its page and JSON, and the model card beside the trained weights.

    Args:
        run: folder of a finished run.
        request: what is asked for.
        out: HTML file; default: `card.html` in the run folder.
        console: where progress goes; None: nowhere.

    Raises:
        ConfigError: `out` cannot be what it names; and as `find_card`.
    """
    plan = plan_card(run, request)
    page = out or plan.run.path / FILE
    check_page(page)
    card = find_card(plan, console)
    write_card(card, page)
    write_model_card(plan.run, card, plan.own)
    return card


def find_card(plan: CardPlan, console: Console | None = None) -> Card:
    """Measure a run's starting policy and what it trained, one after the other in one Ray cluster.

    Args:
        plan: of `plan_card`.
        console: where progress goes; None: nowhere.

    Raises:
        CheckpointError: a policy's files do not fit together.
        RolloutError: a stage failed.
    """
    console = console or Console(quiet=True)
    counts = " and ".join(f"{len(ids)} {name}" for name, ids in plan.sets.items())
    show(console, f"card of {plan.run.path}: {counts} prompts x {plan.config.evaluation.images_per_prompt} images")
    with activity(console, "loading libraries"):
        for path in (plan.start, plan.trained):
            check_model(path)
        from blip3o_grpo.cluster import ray_cluster

    after = Evaluation.load(plan.run.evaluations / "after.json")
    state = read_reward_state(plan.run.reward_state) if plan.run.reward_state.exists() else {}
    with ExitStack() as stack:
        with activity(console, "starting Ray"):
            stack.enter_context(ray_cluster(plan.config))
        tables = [
            _measured(plan, path, name, state, console)
            for name, path in zip(PICTURES, (plan.start, plan.trained), strict=True)
        ]
    weights = {reward.name: reward.weight for reward in plan.config.rewards}
    rows = make_rows(*tables, plan.sets, weights, plan.margins)
    rows += make_rows(*read_tables(plan, console), {}, plan.margins, plan.lower)
    return Card(
        run=str(plan.run.path),
        start=plan.own.policy.path,
        steps=after.step,
        heldout=plan.config.prompts.heldout,
        images_per_prompt=plan.config.evaluation.images_per_prompt,
        rows=rows,
        left_out=plan.left_out,
        request=plan.request,
        policies={"start": weights_digest(plan.start), "trained": weights_digest(plan.trained)},
        versions=versions(),
    )


def _measured(plan: CardPlan, policy: Path, name: str, state: dict[str, Any], console: Console) -> Table:
    """One policy's values; a few of its held-out pictures go to the run's `evaluations`."""
    groups = measure(plan.config, policy, plan.prompts, explain=False, console=console, reward_state=state)
    heldout = set(plan.sets[HELDOUT])
    shown = [group for group in groups if group.prompt.id in heldout][: plan.config.evaluation.grid_prompts]
    save_images(plan.run.evaluations / f"{name}-images", shown)
    return measure_groups(groups)
