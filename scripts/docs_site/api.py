"""The reference of the Python API: every public name of `blip3o_grpo`, by kind; mkdocstrings fills it in."""

from __future__ import annotations

import blip3o_grpo

KINDS = {
    "Configurations": ("load_recipe", "load_warmstart", "load_study", "RunConfig", "WarmstartConfig"),
    "Training": ("train", "TrainingResult", "warm_start", "WarmstartResult", "plan", "RunStopped"),
    "Images and measuring": (
        "sample",
        "evaluate",
        "SuiteResult",
        "benchmark",
        "BenchmarkReport",
        "read_suite",
        "ReadingReport",
        "compare_steps",
        "write_report",
        "make_card",
        "Card",
        "verify_card",
        "CardCheck",
        "BLIP3oNext",
    ),
    "Studies": ("ablate", "rescore"),
    "Rewards": (
        "check_reward",
        "available_rewards",
        "group_reward",
        "Reward",
        "RewardBase",
        "RewardBatch",
        "CheckedReward",
    ),
    "Prompts": ("Prompt", "load_prompts"),
    "Errors": (
        "ConfigError",
        "PromptError",
        "RewardError",
        "CheckpointError",
        "RolloutError",
        "RunFolderInUseError",
    ),
}
FIELDS_ELSEWHERE = {"RunConfig": "configuration.md#run", "WarmstartConfig": "configuration.md#warm-start"}
"""Configurations have a reference of their own."""
MODULES = ("configs", "policies", "rewards", "rollout", "__version__")
"""Public, but no page of their own: see the map."""


def build_page() -> str:
    """The page, in Markdown.

    Raises:
        SystemExit: a public name that belongs to no kind, or a name that is no longer public.
    """
    shown = {name for names in KINDS.values() for name in names}
    differing = shown.symmetric_difference(set(blip3o_grpo.__all__) - set(MODULES))
    if differing:
        raise SystemExit(f"scripts/docs_site/api.py and blip3o_grpo.__all__ differ in {', '.join(sorted(differing))}")
    lines = [
        "# Python API",
        "",
        "Every public name of `import blip3o_grpo as bg`. How they go together: [Python](python.md).",
    ]
    for kind, names in KINDS.items():
        lines += ["", f"## {kind}"]
        for name in names:
            lines += ["", f"::: blip3o_grpo.{name}"]
            if name in FIELDS_ELSEWHERE:
                lines += [
                    "    options:",
                    "      members: false",
                    "",
                    f"Its keys: [Configuration]({FIELDS_ELSEWHERE[name]}).",
                ]
    return "\n".join(lines) + "\n"
