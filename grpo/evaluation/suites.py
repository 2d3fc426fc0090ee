"""`blip3o-grpo eval`: measure one policy, or two on the same prompts with the same seeds and noise.

Settings come from a run folder or a recipe; all that can be wrong is found before a model loads or a worker starts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from blip3o_grpo.configs import DEFAULT_RECIPE, ConfigError, RewardSection, RunConfig, load_run_config, whole_path
from blip3o_grpo.configs.atomic import require_writable
from blip3o_grpo.configs.needs_tokens import require_tokens
from blip3o_grpo.evaluation.benchmark_options import refuse_saved
from blip3o_grpo.evaluation.benchmark_result import Subset, draw_subset, part_of
from blip3o_grpo.evaluation.grids import save_grid
from blip3o_grpo.evaluation.heldout import Evaluation, collect_heldout, paired_difference, summarise
from blip3o_grpo.evaluation.statistics import Estimate, estimate
from blip3o_grpo.planning.guidance import check_guidance
from blip3o_grpo.planning.pictures import check_pictures
from blip3o_grpo.policies import PromptEncoder, PromptError, check_headers
from blip3o_grpo.progress import Bar, activity
from blip3o_grpo.rewards import declared
from blip3o_grpo.rewards.scored_prompt import ScoredPrompt
from blip3o_grpo.rewards.suites import Suite, find_suite
from blip3o_grpo.rollout import Prompt, RolloutGroup, load_prompts
from blip3o_grpo.run.folder import RunFolder, policy_folder
from blip3o_grpo.terminal import show
from blip3o_grpo.validate import check_prompts, check_rewards


@dataclass(frozen=True)
class SuiteResult:
    """What was measured."""

    suite: str
    reward: RewardSection
    policies: tuple[str, ...]
    """As the user named them: the policy, and the one it was compared with, if any."""
    evaluations: tuple[Evaluation, ...]
    """One per policy."""
    difference: Evaluation | None
    """First minus second policy, paired by prompt."""
    subset: Subset | None = None
    """None: no draw; all prompts, or the first so many."""
    available_prompts: int | None = None
    """Prompts of the file that the suite applies to; None: not known."""

    def scope_note(self) -> str | None:
        """What was measured on, where it is not all of the file; None: it is."""
        count = self.evaluations[0].num_prompts
        if self.available_prompts in (None, count):
            return None
        if self.subset is None:
            return f"SUBSET: the first {count} of {self.available_prompts} prompts."
        return f"SUBSET: {count} of {self.available_prompts} prompts, drawn with seed {self.subset.seed}."

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        drawn = {
            "subset": asdict(self.subset) if self.subset else None,
            "available_prompts": self.available_prompts,
        }
        result = {"suite": self.suite, **drawn, **self._policy(0)}
        if self.difference is not None:
            result["compare"] = self._policy(1)
            result["difference"] = _numbers(self.difference)
        return result

    def _policy(self, index: int) -> dict[str, Any]:
        evaluation = self.evaluations[index]
        values = {"policy": self.policies[index], **_numbers(evaluation)}
        if find_suite(self.suite).counts_correct:
            values["prompts_with_a_correct_image"] = asdict(correct_prompts(evaluation, self.reward.name))
        return values


def correct_prompts(evaluation: Evaluation, name: str) -> Estimate:
    """Share of prompts with at least one correct image; the official summary's second number."""
    return estimate([float(row[name] > 0) for row in evaluation.per_prompt.values() if row[name] is not None])


def run_suite(
    suite: str,
    policy: str,
    *,
    compare: str | None = None,
    recipe: Path | None = None,
    prompts: Path | None = None,
    subset: Subset | None = None,
    grid: Path | None = None,
    results: Path | None = None,
    overrides: Sequence[str] = (),
    console: Console | None = None,
) -> SuiteResult:
    """Measure a policy, or two one after the other in one Ray cluster.

    Args:
        suite: a registered one, see `blip3o_grpo.rewards.suites`.
        policy: `tiny`, a folder in the released layout, or a run folder.
        compare: a second one.
        recipe: YAML file with the settings; default: those of the first of both that is a run folder, else the suite's.
        prompts: prompt file; default: the settings' held-out file, as far as the suite applies to its prompts.
        subset: so many of these prompts, drawn at random; None: the first `evaluation.num_prompts`.
        grid: PNG file for the pictures; those of `compare` go to `NAME-other.png`.
        results: JSONL file for the suite's own result format; that of `compare` goes to `NAME-other.jsonl`.
        overrides: changes of settings, `section.key=value`.
        console: where progress goes; None: nowhere.

    Raises:
        ConfigError, CheckpointError, PromptError, RewardError: before any model loads.
    """
    console = console or Console(quiet=True)
    policies = (policy,) if compare is None else (policy, compare)
    refuse_saved(suite, policies)
    config = suite_config(suite, policies, recipe, prompts, overrides)
    fitting = suite_prompts(suite, config, whole_file=prompts is not None)
    chosen = fitting[: config.evaluation.num_prompts] if subset is None else draw_subset(fitting, subset)
    config = config.model_copy(update={"evaluation": config.evaluation.model_copy(update={"num_prompts": len(chosen)})})
    check_rewards(config)
    paths = [check_policy(name, chosen, config) for name in policies]
    if grid is not None and grid.suffix.lower() != ".png":
        raise ConfigError(f"{grid}: pictures are written as .png, not {grid.suffix!r}")
    if grid is not None and grid.is_dir():
        raise ConfigError(f"{grid} is a folder; pictures are written as a .png file")
    for file in (grid, results):
        if file is not None:
            require_writable(file)
    if results is not None:
        if find_suite(suite).results is None:
            raise ConfigError(f"results are in a benchmark's own format; suite {suite!r} has none")
        for index in range(len(policies)):
            find_suite(suite).results.check(output(results, index))
    show(console, f"suite {suite}: {len(chosen)} of {len(fitting)} prompts of {config.prompts.heldout}")
    with activity(console, "loading libraries"):
        for path in paths:
            check_model(path)
            check_guidance(config, path)
        from blip3o_grpo.cluster import ray_cluster

    measured = []
    with ExitStack() as stack:
        with activity(console, "starting Ray"):
            stack.enter_context(ray_cluster(config))
        for index, path in enumerate(paths):
            groups = measure(config, path, chosen, explain=results is not None, console=console)
            measured.append(groups)
            if grid is not None:
                save_grid(output(grid, index), groups[: config.evaluation.grid_prompts])
            if results is not None:
                prompts_scored = scored_prompts(groups, config.rewards[0].name)
                find_suite(suite).results.write(output(results, index), prompts_scored)
    return SuiteResult(
        suite,
        config.rewards[0],
        policies,
        tuple(summarise(groups, config.rewards, step=0) for groups in measured),
        paired_difference(*measured, config.rewards) if compare is not None else None,
        part_of(len(fitting), subset),
        len(fitting),
    )


def suite_config(
    suite: str, policies: Sequence[str], recipe: Path | None, prompts: Path | None, overrides: Sequence[str]
) -> RunConfig:
    """Settings of an evaluation, the same for both policies.

    Raises:
        ConfigError, RewardError: unknown suite, policy or setting.
    """
    found = find_suite(suite)
    if found.benchmark is not None:
        raise ConfigError(f"suite {suite!r} has official data and a judge; measure it with blip3o_grpo.benchmark")
    default = DEFAULT_RECIPE.parent / found.recipe
    config = measuring_config(suite, policies, recipe, default, prompts, overrides)
    return config.model_copy(update={"rewards": (suite_reward(found, config),)})


def measuring_config(
    name: str,
    policies: Sequence[str],
    recipe: Path | None,
    default: Path,
    prompts: Path | None,
    overrides: Sequence[str],
) -> RunConfig:
    """Settings of a measurement: those of the recipe, else of the first policy that is a run, else the default.

    Raises:
        ConfigError: unknown policy or setting.
    """
    runs = [run.config for run in map(RunFolder, policies) if run.config.is_file()]
    if prompts is not None:  # first, so that an override can still ask for fewer
        overrides = [f"evaluation.num_prompts={len(load_prompts(prompts))}", *overrides]
    base = load_run_config(recipe or (runs[0] if runs else default), overrides)
    require_tokens(base, "this command")
    file = base.prompts.heldout if prompts is None else str(prompts)
    return base.model_copy(
        update={
            "run_dir": str(whole_path(base.run_dir) / "eval" / name),  # of failures
            "policy": base.policy.model_copy(update={"path": str(policy_folder(policies[0]))}),
            "prompts": base.prompts.model_copy(update={"train": file, "heldout": file}),
            "rollout": base.rollout.model_copy(update={"prompts_per_step": 1}),
            "cluster": base.cluster.model_copy(update={"trainers": 1}),
        }
    )


def suite_reward(suite: Suite, base: RunConfig) -> RewardSection:
    """What is measured, where the suite says so with options and environment of the settings' reward of that kind."""
    given = (reward for reward in base.rewards if reward.target == suite.reward) if suite.uses_run_options else ()
    section = next(iter(given), None) or RewardSection(name=suite.reward)
    fixed = {"name": suite.reward, "type": None, "weight": 1.0, "on_error": "stop"}
    return section.model_copy(update={**fixed, "options": dict(suite.options(section.options))})


def scored_prompts(groups: Sequence[RolloutGroup], name: str) -> list[ScoredPrompt]:
    """Scored and explained groups as a suite's result format takes them."""
    return [
        ScoredPrompt(
            group.prompt.text,
            group.prompt.metadata,
            [rollout.image for rollout in group.rollouts],
            [rollout.rewards[name] for rollout in group.rollouts],
            [rollout.explanations[name] for rollout in group.rollouts],
            group.prompt.id,
        )
        for group in groups
    ]


def suite_prompts(suite: str, config: RunConfig, *, whole_file: bool) -> list[Prompt]:
    """The prompts that can be measured on: those of the file that the suite applies to.

    Raises:
        PromptError: none is left; or, with `whole_file`, the suite does not apply to all of them.
    """
    file, spec = config.prompts.heldout, declared(find_suite(suite).reward)
    prompts = load_prompts(file)
    fitting = [prompt for prompt in prompts if spec.applies(prompt.text, prompt.metadata)]
    if not fitting or (whole_file and len(fitting) < len(prompts)):
        first = next(prompt for prompt in prompts if prompt not in fitting)
        raise PromptError(
            f"{file}: suite {suite!r} cannot score {len(prompts) - len(fitting)} of {len(prompts)} prompts, the first "
            f"is {first.text!r}; it needs {find_suite(suite).needs}"
        )
    return fitting


def check_policy(name: str, prompts: list[Prompt], config: RunConfig) -> Path:
    """Folder of a policy whose headers are complete and whose context holds the prompts; imports nothing large.

    Raises:
        CheckpointError, PromptError: as `blip3o_grpo.validate.check_run`.
    """
    folder = check_headers(policy_folder(name))
    check_prompts(prompts, config.prompts.heldout, PromptEncoder.from_pretrained(folder, plain=True), config)
    check_pictures(config, folder, prompts)
    return folder


def check_model(folder: Path) -> None:
    """What only the model's classes tell of a policy's files.

    Raises:
        CheckpointError: as `BLIP3oNext.check`.
    """
    from blip3o_grpo.policies import BLIP3oNext

    BLIP3oNext.check(folder)


def measure(
    config: RunConfig,
    policy_path: Path,
    prompts: Sequence[Prompt],
    *,
    explain: bool,
    console: Console,
    reward_state: Mapping[str, Any] | None = None,
) -> tuple[RolloutGroup, ...]:
    """Scored groups of one policy, by workers of its own.

    `reward_state` is what rewards remember of a starting policy (`RolloutPipeline.load_reward_state`).
    """
    from blip3o_grpo.policies import BLIP3oNext
    from blip3o_grpo.rollout import RolloutPipeline

    rewards = ", ".join(reward.name for reward in config.rewards)
    with ExitStack() as stack:
        with activity(console, f"loading the policy {policy_path} and {rewards} into workers"):
            pipeline = stack.enter_context(closing(RolloutPipeline.launch(config, policy_path)))
            model = BLIP3oNext.from_pretrained(policy_path, parts=("ar",))
            pipeline.sync_weights(model.ar.state_dict(), version=0)
        pipeline.load_reward_state(reward_state or {})
        with Bar(console, "measuring", len(prompts), unit="prompt") as bar:
            return collect_heldout(pipeline, prompts, config, explain=explain, progress=bar.see)


def output(path: Path, index: int) -> Path:
    """Where the first or second policy's file goes."""
    return path if index == 0 else path.with_name(f"{path.stem}-other{path.suffix}")


def _numbers(evaluation: Evaluation) -> dict[str, Any]:
    values = asdict(evaluation)
    numbers = {key: values[key] for key in ("num_prompts", "images_per_prompt", "means", "intervals", "tags")}
    return {**numbers, "estimates": {name: asdict(found) for name, found in evaluation.estimates().items()}}
