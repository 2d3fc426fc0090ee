"""`blip3o-grpo eval`: measure one policy, or two on the same prompts with the same seeds and noise.

Settings come from a run folder or a recipe; all that can be wrong is found before a model loads or a worker starts.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from blip3o_grpo.cluster import ray_cluster
from blip3o_grpo.configs import DEFAULT_RECIPE, ConfigError, RewardSection, RunConfig, load_run_config
from blip3o_grpo.evaluation.geneval_results import check_results_path, write_results
from blip3o_grpo.evaluation.grids import save_grid
from blip3o_grpo.evaluation.heldout import Evaluation, collect_heldout, paired_difference, summarise
from blip3o_grpo.policies import BLIP3oNext, PromptEncoder, PromptError
from blip3o_grpo.rewards import is_applicable
from blip3o_grpo.rollout import Prompt, RolloutGroup, RolloutPipeline, load_prompts
from blip3o_grpo.run.folder import RunFolder, policy_folder
from blip3o_grpo.validate import check_prompts, check_rewards


@dataclass(frozen=True)
class Suite:
    """One thing to measure."""

    reward: RewardSection
    """Its score, unless the settings hold another reward of that kind."""
    recipe: Path
    """Settings where neither a run folder nor the user gives any."""
    needs: str
    """What a prompt must have to be scored."""


SUITES = {
    "ocr": Suite(RewardSection(name="ocr"), DEFAULT_RECIPE, "the words to write in double quotes"),
    "geneval": Suite(
        RewardSection(name="geneval"),
        DEFAULT_RECIPE.with_name("tiny_geneval.yaml"),
        "a GenEval record: the keys `tag` and `include`",
    ),
}


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

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        result = {"suite": self.suite, **self._policy(0)}
        if self.difference is not None:
            result["compare"] = self._policy(1)
            result["difference"] = _numbers(self.difference)
        return result

    def _policy(self, index: int) -> dict[str, Any]:
        evaluation = self.evaluations[index]
        values = {"policy": self.policies[index], **_numbers(evaluation)}
        if self.suite == "geneval":
            values["prompts_with_a_correct_image"] = correct_prompts(evaluation, self.reward.name)
        return values


def correct_prompts(evaluation: Evaluation, name: str) -> float:
    """Share of prompts with at least one correct image; the official summary's second number."""
    values = [row[name] for row in evaluation.per_prompt.values() if row[name] is not None]
    return sum(value > 0 for value in values) / len(values)


def run_suite(
    suite: str,
    policy: str,
    *,
    compare: str | None = None,
    recipe: str | None = None,
    prompts: Path | None = None,
    grid: Path | None = None,
    results: Path | None = None,
    overrides: Sequence[str] = (),
) -> SuiteResult:
    """Measure a policy, or two one after the other in one Ray cluster.

    Args:
        suite: a key of `SUITES`.
        policy: `tiny`, a folder in the released layout, or a run folder.
        compare: a second one.
        recipe: YAML file with the settings; default: those of the first of both that is a run folder, else the suite's.
        prompts: prompt file; default: the settings' held-out file, as far as the suite applies to its prompts.
        grid: PNG file for the pictures; those of `compare` go to `NAME-other.png`.
        results: JSONL file for GenEval's official result format; that of `compare` goes to `NAME-other.jsonl`.
        overrides: changes of settings, `section.key=value`.

    Raises:
        ConfigError, CheckpointError, PromptError, RewardError: before any model loads.
    """
    policies = (policy,) if compare is None else (policy, compare)
    config = suite_config(suite, policies, recipe, prompts, overrides)
    chosen = suite_prompts(suite, config, whole_file=prompts is not None)
    check_rewards(config)
    paths = [check_policy(name, chosen, config) for name in policies]
    if grid is not None and grid.suffix.lower() != ".png":
        raise ConfigError(f"{grid}: pictures are written as .png, not {grid.suffix!r}")
    if results is not None:
        if suite != "geneval":
            raise ConfigError(f"results are in GenEval's format; suite {suite!r} has none")
        for index in range(len(policies)):
            check_results_path(output(results, index))
    measured = []
    with ray_cluster(config):
        for index, path in enumerate(paths):
            groups = measure(config, path, chosen, explain=results is not None)
            measured.append(groups)
            if grid is not None:
                save_grid(output(grid, index), groups[: config.evaluation.grid_prompts])
            if results is not None:
                write_results(output(results, index), groups, config.rewards[0].name)
    return SuiteResult(
        suite,
        config.rewards[0],
        policies,
        tuple(summarise(groups, config.rewards, step=0) for groups in measured),
        paired_difference(*measured, config.rewards) if compare is not None else None,
    )


def suite_config(
    suite: str, policies: Sequence[str], recipe: str | None, prompts: Path | None, overrides: Sequence[str]
) -> RunConfig:
    """Settings of an evaluation, the same for both policies.

    Raises:
        ConfigError: unknown suite, policy or setting.
    """
    if suite not in SUITES:
        raise ConfigError(f"unknown suite {suite!r}; known suites: {', '.join(SUITES)}")
    config = measuring_config(suite, policies, recipe, SUITES[suite].recipe, prompts, overrides)
    reward = strict_geneval(config) if suite == "geneval" else SUITES[suite].reward
    return config.model_copy(update={"rewards": (reward,)})


def measuring_config(
    name: str,
    policies: Sequence[str],
    recipe: str | None,
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
    file = base.prompts.heldout if prompts is None else str(prompts)
    return base.model_copy(
        update={
            "run_dir": str(Path(base.run_dir).expanduser().resolve() / "eval" / name),  # of failures
            "policy": base.policy.model_copy(update={"path": str(policy_folder(policies[0]))}),
            "prompts": base.prompts.model_copy(update={"train": file, "heldout": file}),
            "rollout": base.rollout.model_copy(update={"prompts_per_step": 1}),
            "cluster": base.cluster.model_copy(update={"trainers": 1}),
        }
    )


def strict_geneval(base: RunConfig) -> RewardSection:
    """The official verdict; detector, colours and environment are those of the settings' GenEval reward, if any.

    With the official detector, Mask2Former, thresholds are the official ones whatever a recipe trains with; other
    detectors keep the recipe's, and the table says so.
    """
    trained = next((reward for reward in base.rewards if reward.target == "geneval"), SUITES["geneval"].reward)
    thresholds = ("threshold", "counting_threshold") if uses_mask2former(trained) else ()
    options = {name: value for name, value in trained.options.items() if name not in thresholds}
    official = {"name": "geneval", "type": None, "weight": 1.0, "on_error": "stop"}
    return trained.model_copy(update={**official, "options": {**options, "score": "strict"}})


def uses_mask2former(reward: RewardSection) -> bool:
    """Whether a GenEval reward looks with the benchmark's own detector."""
    return reward.options.get("detector", "transformers") in ("mmdet", "transformers")


def suite_prompts(suite: str, config: RunConfig, *, whole_file: bool) -> list[Prompt]:
    """The prompts to measure on: the first `evaluation.num_prompts` of the file that the suite applies to.

    Raises:
        PromptError: none is left; or, with `whole_file`, the suite does not apply to all of them.
    """
    file, target = config.prompts.heldout, SUITES[suite].reward.target
    prompts = load_prompts(file)
    fitting = [prompt for prompt in prompts if is_applicable(target, prompt.text, prompt.metadata)]
    if not fitting or (whole_file and len(fitting) < len(prompts)):
        first = next(prompt for prompt in prompts if prompt not in fitting)
        raise PromptError(
            f"{file}: suite {suite!r} cannot score {len(prompts) - len(fitting)} of {len(prompts)} prompts, the first "
            f"is {first.text!r}; it needs {SUITES[suite].needs}"
        )
    return fitting[: config.evaluation.num_prompts]


def check_policy(name: str, prompts: list[Prompt], config: RunConfig) -> Path:
    """Folder of a policy whose files are complete and whose context holds the prompts; loads no weights.

    Raises:
        CheckpointError, PromptError: as `blip3o_grpo.validate.check_run`.
    """
    folder = policy_folder(name)
    check_prompts(prompts, config.prompts.heldout, PromptEncoder.from_pretrained(folder), config)
    BLIP3oNext.check(folder)
    return folder


def measure(
    config: RunConfig, policy_path: Path, prompts: Sequence[Prompt], *, explain: bool
) -> tuple[RolloutGroup, ...]:
    """Scored groups of one policy, by workers of its own."""
    with closing(RolloutPipeline.launch(config, policy_path)) as pipeline:
        model = BLIP3oNext.from_pretrained(policy_path, parts=("ar",))
        pipeline.sync_weights(model.ar.state_dict(), version=0)
        return collect_heldout(pipeline, prompts, config, explain=explain)


def output(path: Path, index: int) -> Path:
    """Where the first or second policy's file goes."""
    return path if index == 0 else path.with_name(f"{path.stem}-other{path.suffix}")


def _numbers(evaluation: Evaluation) -> dict[str, Any]:
    values = asdict(evaluation)
    return {key: values[key] for key in ("num_prompts", "images_per_prompt", "means", "intervals", "tags")}
