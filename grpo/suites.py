"""`blip3o-grpo eval`: measure any policy with the settings of its run (or of the default recipe)."""

from __future__ import annotations

from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

from configs import DEFAULT_RECIPE, ConfigError, RewardSection, RunConfig, load_run_config
from grpo.checkpoints import RunFolder, policy_folder
from grpo.cluster import ray_cluster
from grpo.evaluation import collect_heldout, summarise
from grpo.grids import save_grid
from grpo.validate import check_run
from policies import BLIP3oNext
from rollout import RolloutPipeline

SUITES = {"ocr": (RewardSection(name="ocr"),), "geneval": (RewardSection(name="geneval"),)}
"""Suite name to the rewards it reports."""


def suite_config(suite: str, policy: str, prompts: Path | None, overrides: list[str]) -> RunConfig:
    """Settings of an evaluation: those of the run folder if `policy` is one, else the default recipe's.

    Raises:
        ConfigError: unknown suite or setting.
    """
    if suite not in SUITES:
        raise ConfigError(f"unknown suite {suite!r}; known suites: {', '.join(SUITES)}")
    run = RunFolder(policy)
    base = load_run_config(run.config if run.config.is_file() else DEFAULT_RECIPE, overrides)
    files = {} if prompts is None else {"train": str(prompts), "heldout": str(prompts)}
    return base.model_copy(
        update={
            "run_dir": str(Path(base.run_dir) / "eval" / suite),  # of failures; the run's own settings differ
            "policy": base.policy.model_copy(update={"path": str(policy_folder(policy))}),
            "prompts": base.prompts.model_copy(update=files),
            "rewards": SUITES[suite] if suite != "geneval" else (strict_geneval(base),),
            "rollout": base.rollout.model_copy(update={"prompts_per_step": 1}),
            "cluster": base.cluster.model_copy(update={"trainers": 1}),
        }
    )


def strict_geneval(base: RunConfig) -> RewardSection:
    """The official verdict with the detector and colours of the run's own GenEval reward, else the official ones."""
    trained = next((reward for reward in base.rewards if reward.target == "geneval"), SUITES["geneval"][0])
    return RewardSection(name="geneval", options={**trained.options, "score": "strict"})


def run_suite(
    suite: str, policy: str, *, prompts: Path | None = None, grid: Path | None = None, overrides: list[str]
) -> dict[str, Any]:
    """Means and 95 % intervals of a suite's scores, as a dictionary ready for JSON.

    Raises:
        ConfigError, CheckpointError, PromptError: before any model loads.
    """
    run = check_run(suite_config(suite, policy, prompts, overrides))
    with ray_cluster(run.config), closing(RolloutPipeline.launch(run.config, run.policy_path)) as pipeline:
        model = BLIP3oNext.from_pretrained(run.policy_path, parts=("ar",))
        pipeline.sync_weights(model.ar.state_dict(), version=0)
        groups = collect_heldout(pipeline, run.heldout_prompts, run.config)
    if grid:
        save_grid(grid, groups[: run.config.evaluation.grid_prompts])
    result = asdict(summarise(groups, run.config.rewards, step=0))
    return {key: result[key] for key in ("num_prompts", "images_per_prompt", "means", "intervals", "tags")}
