"""What a policy has changed, from two evaluations on the same prompts: differences are taken prompt by prompt."""

from __future__ import annotations

from blip3o_grpo.evaluation.heldout import Evaluation
from blip3o_grpo.evaluation.statistics import Estimate, estimate


def paired_changes(before: Evaluation, after: Evaluation) -> dict[str, Estimate]:
    """`after - before` by the names of `Evaluation.estimates`, over the prompts that both have a score for.

    Without an interval where no prompt is known to be in both: tags of evaluations of older versions, which did not
    store their prompts.
    """
    old, new = before.estimates(), after.estimates()
    changes = {name: Estimate(new[name].mean - old[name].mean, None, None, None) for name in new if name in old}
    for name in after.means:
        if values := list(_differences(before, after, name).values()):
            changes[name] = estimate(values, paired=True)
    for name, tags in after.tag_prompts.items():
        differences = _differences(before, after, name)
        by_tag = {tag: [differences[id_] for id_ in ids if id_ in differences] for tag, ids in tags.items()}
        by_tag = {tag: values for tag, values in by_tag.items() if values}
        changes |= {f"{name}/{tag}": estimate(values, paired=True) for tag, values in by_tag.items()}
        if by_tag:
            changes[f"{name}/overall"] = estimate(*by_tag.values(), paired=True)
    return changes


def _differences(before: Evaluation, after: Evaluation, name: str) -> dict[str, float]:
    pairs = {id_: (before.per_prompt.get(id_, {}).get(name), row.get(name)) for id_, row in after.per_prompt.items()}
    return {id_: new - old for id_, (old, new) in pairs.items() if old is not None and new is not None}
