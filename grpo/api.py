"""What `import blip3o_grpo as bg` offers, and what the commands call: thin functions with typed results.

Nothing heavy is imported before a function is called. Errors meant for the user are raised as themselves, also where a
Ray worker raised them: `except bg.RewardError` works.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from blip3o_grpo import library_output  # noqa: F401
from blip3o_grpo.configs import (
    STUDIES,
    ConfigError,
    RunConfig,
    WarmstartConfig,
    find_recipe,
    load_run_config,
    load_warmstart_config,
    whole_path,
)
from blip3o_grpo.configs.study import StudyConfig, load_study_config

if TYPE_CHECKING:
    from PIL import Image
    from rich.console import Console

    from blip3o_grpo.card.card import Card
    from blip3o_grpo.card.verify import CardCheck
    from blip3o_grpo.evaluation.benchmark_result import BenchmarkReport, Subset
    from blip3o_grpo.evaluation.diffusion_steps import StepsResult
    from blip3o_grpo.evaluation.suites import SuiteResult
    from blip3o_grpo.planning.plan import Plan
    from blip3o_grpo.policies import BLIP3oNext
    from blip3o_grpo.reading.result import ReadingReport
    from blip3o_grpo.result import TrainingResult
    from blip3o_grpo.rollout import Prompt
    from blip3o_grpo.study.ablate import StudyResult
    from blip3o_grpo.study.rescore import Rescored
    from blip3o_grpo.warmstart import WarmstartResult

__version__ = importlib.metadata.version("blip3o-grpo")

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


def _plain_errors(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """Raise the error that was meant for the user in place of Ray's, which wraps it."""

    @wraps(function)
    def wrapped(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        try:
            return function(*args, **kwargs)
        except Exception as error:
            from blip3o_grpo.errors import user_error

            ours = user_error(error)
            if ours is None or ours is error:
                raise
            raise ours from ours.__cause__  # which may be that memory or a disk was short

    return wrapped


def load_recipe(recipe: str | Path, *overrides: str) -> RunConfig:
    """The configuration of a run, checked as far as the file alone can tell.

    Args:
        recipe: name of a shipped recipe (`tiny_ocr`), or path of a YAML file.
        overrides: changes, `section.key=value`; list items by index: `rewards.0.weight=2`.

    Raises:
        ConfigError: unknown recipe or key, wrong value; names file, key and the nearest right value.
    """
    return load_run_config(find_recipe(recipe), overrides)


def load_warmstart(recipe: str | Path, *overrides: str) -> WarmstartConfig:
    """The configuration of a warm start; otherwise like `load_recipe`."""
    return load_warmstart_config(find_recipe(recipe), overrides)


def load_study(study: str | Path, *overrides: str, smoke: bool = False) -> StudyConfig:
    """The configuration of a study: name of a shipped one (`tiny_rewards`), or path of a YAML file.

    Args:
        study: name or path.
        overrides: changes of every trial, `section.key=value`, or of the study's own `study_dir`, `seeds`, `baseline`,
            `correction` and `trials`. What its arms or suites decide is refused.
        smoke: shrink it to a few minutes, in a folder of its own.

    Raises:
        ConfigError: as `load_recipe`.
    """
    return load_study_config(find_recipe(study, STUDIES), overrides, smoke=smoke)


@_plain_errors
def train(config: RunConfig, console: Console | None = None) -> TrainingResult:
    """Fine-tune with GRPO; on a folder that holds checkpoints of the same configuration, resume.

    Args:
        config: from `load_recipe`.
        console: where progress goes; default: the terminal or the notebook. `Console(quiet=True)` prints nothing.

    Raises:
        ConfigError, CheckpointError, PromptError, RewardError: before any model loads, where that can be known.
        RolloutError: a stage failed.
        RunStopped: a `KeyboardInterrupt`: Ctrl-C, the notebook's stop button or SIGTERM; the same call resumes. In a
            thread of yours signals are not ours to take: create the file `.stop` in the run folder to the same end.
    """
    _require(config, RunConfig, "train(load_recipe(...))")
    from blip3o_grpo.result import finished_result

    if (result := finished_result(config)) is not None:
        return result
    from blip3o_grpo.validate import check_inputs

    run = check_inputs(config)  # what files can tell, before anything heavy is imported
    from rich.console import Console

    from blip3o_grpo.progress import activity
    from blip3o_grpo.rollout.workers.quick_imports import quick_imports

    console = console or Console()
    with activity(console, "loading libraries"), quick_imports():
        from blip3o_grpo.driver import train as run_training

    return run_training(run, console)


@_plain_errors
def warm_start(config: WarmstartConfig, console: Console | None = None) -> WarmstartResult:
    """Train a policy on images and captions, before any reward is involved.

    Args:
        config: from `load_warmstart`.
        console: as for `train`.
    """
    _require(config, WarmstartConfig, "warm_start(load_warmstart(...))")
    from blip3o_grpo.warmstart import train_supervised

    return train_supervised(config, console)


@_plain_errors
def sample(
    policy: str | Path | BLIP3oNext,
    prompts: str | Prompt | Sequence[str | Prompt],
    *,
    images: int = 4,
    seed: int = 0,
    temperature: float = 1.0,
    top_p: float = 1.0,
    top_k: int = 0,
    steps: int = 30,
    guidance: float = 2.0,
    console: Console | None = None,
) -> list[list[Image.Image]]:
    """Draw images; starts no Ray.

    Args:
        policy: `tiny`, a folder in the released layout, a run folder, or a loaded policy.
        prompts: captions, or what `load_prompts` read; one alone is a list of one.
        images: per prompt.
        seed: the same seed draws the same images.
        temperature: divides the logits of the image tokens.
        top_p: draw from the fewest image tokens that together have this probability; the released demo names 0.95.
        top_k: draw from so many of the likeliest; 0: all. The released demo names 1200.
        steps: diffusion steps.
        guidance: scale of classifier-free guidance, from 1.
        console: where progress goes; default: nowhere.

    Returns:
        For each prompt its RGB images.

    Raises:
        CheckpointError, ConfigError, PromptError: no such policy, a number out of range, a prompt that does not fit.
    """
    from rich.console import Console

    from blip3o_grpo.sampling import sample_images

    listed = [prompts] if not isinstance(prompts, Sequence) or isinstance(prompts, str) else prompts
    texts = [prompt if isinstance(prompt, str) else prompt.text for prompt in listed]
    return sample_images(
        policy,
        texts,
        images=images,
        seed=seed,
        temperature=temperature,
        top_p=top_p,
        top_k=top_k,
        steps=steps,
        guidance=guidance,
        console=console or Console(quiet=True),
    )


@_plain_errors
def evaluate(
    policy: str | Path,
    suite: str | None = None,
    *,
    compare: str | Path | None = None,
    recipe: str | Path | None = None,
    overrides: Sequence[str] = (),
    prompts: str | Path | None = None,
    num_prompts: int | None = None,
    limit: int | None = None,
    limit_seed: int | None = None,
    images: int | None = None,
    temperature: float | None = None,
    top_p: float | None = None,
    top_k: int | None = None,
    grid: str | Path | None = None,
    results: str | Path | None = None,
    console: Console | None = None,
) -> SuiteResult:
    """Measure a policy, or two, on held-out prompts, with the seeds and settings that training uses.

    Args:
        policy: `tiny`, a folder in the released layout, or a run folder.
        suite: name of what to measure, `ocr` or `geneval` or a plug-in's; default: `ocr`.
        compare: a second policy, on the same prompts and noise.
        recipe: the settings, as for `load_recipe`; default: those of the run.
        overrides: changes of these settings, `section.key=value`.
        prompts: prompt file, all of it; default: the settings' held-out file.
        num_prompts: only so many prompts, the first of the file.
        limit: only so many prompts, drawn at random from all of the file; not with `num_prompts`.
        limit_seed: of this draw; default: 0.
        images: per prompt.
        temperature: of the draws, as for `sample`; default: the settings'.
        top_p: likewise.
        top_k: likewise.
        grid: PNG file for the pictures; those of `compare` go to `NAME-other.png`.
        results: JSONL file for GenEval's official result format.
        console: where progress goes; default: nowhere.

    Raises:
        ConfigError, CheckpointError, PromptError, RewardError: before any model loads.
    """
    from blip3o_grpo.evaluation.suites import run_suite
    from blip3o_grpo.rewards.suites import DEFAULT_SUITE

    if limit is not None and num_prompts is not None:
        raise ConfigError("--num-prompts takes the first prompts and --limit draws them at random; give one of both")
    return run_suite(
        DEFAULT_SUITE if suite is None else suite,
        str(policy),
        compare=None if compare is None else str(compare),
        recipe=None if recipe is None else find_recipe(recipe),
        prompts=_path(prompts),
        subset=_subset(limit, limit_seed),
        grid=_path(grid),
        results=_path(results),
        overrides=[
            *overrides,
            *_changes(
                {
                    "evaluation.num_prompts": num_prompts,
                    "evaluation.images_per_prompt": images,
                    "evaluation.temperature": temperature,
                    "evaluation.top_p": top_p,
                    "evaluation.top_k": top_k,
                }
            ),
        ],
        console=console,
    )


@_plain_errors
def benchmark(
    policy: str | Path,
    suite: str,
    *,
    compare: str | Path | None = None,
    data: str | Path | None = None,
    judge: str | Path | None = None,
    limit: int | None = None,
    limit_seed: int | None = None,
    options: Mapping[str, Any] | None = None,
    recipe: str | Path | None = None,
    overrides: Sequence[str] = (),
    images: int | None = None,
    grid: str | Path | None = None,
    results: str | Path | None = None,
    console: Console | None = None,
) -> BenchmarkReport:
    """Measure a policy on a benchmark's official data with a judge: the published table, with intervals by prompt.

    Args:
        policy: `tiny`, a folder in the released layout, a run folder, or a saved result (`.json`, of `eval --json`).
        suite: `dpg`, `wise`, `wise-verified`, `longtext`, or a plug-in's.
        compare: a second one, also a saved result; of another judge, other data or other prompts it is refused.
        data: the benchmark's official data; default: what comes with the project.
        judge: YAML file with the judge's `url`, `model`, `version`; default: the judge of the settings' rewards.
        limit: only so many prompts, drawn at random.
        limit_seed: of this draw; default: 0.
        options: of the suite, such as `{"language": "zh"}`.
        recipe: the settings, as for `load_recipe`; default: those of the run.
        overrides: changes of these settings, `section.key=value`.
        images: per prompt; default: the benchmark's number.
        grid: PNG file for the pictures; those of `compare` go to `NAME-other.png`.
        results: file for the benchmark's own result format.
        console: where progress goes; default: nowhere.

    Raises:
        ConfigError, CheckpointError, PromptError, RewardError: before any model loads.
    """
    from blip3o_grpo.evaluation.benchmark import run_benchmark

    return run_benchmark(
        suite,
        str(policy),
        other=None if compare is None else str(compare),
        data=_path(data),
        judge=_path(judge),
        subset=_subset(limit, limit_seed),
        options=options,
        recipe=None if recipe is None else find_recipe(recipe),
        grid=_path(grid),
        results=_path(results),
        overrides=[*overrides, *_changes({"evaluation.images_per_prompt": images})],
        console=console,
    )


@_plain_errors
def read_suite(
    policy: str | Path,
    suite: str,
    *,
    compare: str | Path | None = None,
    data: str | Path | None = None,
    limit: int | None = None,
    limit_seed: int | None = None,
    console: Console | None = None,
) -> ReadingReport:
    """Measure a policy on a suite that has it read and draws nothing, with intervals by item.

    Args:
        policy: as for `evaluate`.
        suite: `text`, `understanding`, or a plug-in's.
        compare: a second one; `text` measures the distance from it, by default from the run's starting policy.
        data: file of texts or questions; default: what comes with the project.
        limit: only so many of them, drawn at random.
        limit_seed: of this draw; default: 0.
        console: where progress goes; default: nowhere.

    Raises:
        ConfigError, CheckpointError, PromptError: before any model loads.
    """
    from blip3o_grpo.reading.run import run_reading

    return run_reading(
        suite,
        str(policy),
        compare=None if compare is None else str(compare),
        data=_path(data),
        subset=_subset(limit, limit_seed),
        console=console,
    )


@_plain_errors
def compare_steps(
    policy: str | Path,
    steps: Sequence[int] | None = None,
    *,
    guidance_interval: tuple[float, float] | None = None,
    recipe: str | Path | None = None,
    overrides: Sequence[str] = (),
    prompts: str | Path | None = None,
    num_prompts: int | None = None,
    images: int | None = None,
    console: Console | None = None,
) -> StepsResult:
    """Do rewards judge images of few diffusion steps as those of many? Same tokens, same noise, rank correlations.

    Args:
        policy: as for `evaluate`, like the arguments not named here.
        steps: numbers of diffusion steps; default: those of rollouts and of evaluations.
        guidance_interval: noise levels between which guidance acts; all numbers of steps with it are compared with the
            largest under the settings' own.
        images: per prompt; default: the group size.
        console: where progress goes; default: nowhere.

    Raises:
        ConfigError, CheckpointError, PromptError, RewardError: before any model loads.
    """
    from blip3o_grpo.evaluation.diffusion_steps import compare_steps as run_comparison

    return run_comparison(
        str(policy),
        steps,
        guidance_interval=guidance_interval,
        recipe=None if recipe is None else find_recipe(recipe),
        prompts=_path(prompts),
        overrides=[*overrides, *_changes({"evaluation.num_prompts": num_prompts, "rollout.group_size": images})],
        console=console,
    )


def plan(
    config: RunConfig,
    measured: str | Path | None = None,
    card: str | None = None,
    tune: int | None = None,
    calibration: str | Path | None = None,
) -> Plan:
    """Where a run's workers go, the memory of each GPU and the expected times; loads no weights.

    Args:
        config: from `load_recipe`.
        measured: run folder to take measured times from.
        card: GPU to compute times for, instead: `a100`, `h100` or `h200`.
        tune: propose the fastest placements on so many GPUs.
        calibration: file with times that were measured on a card (`scripts/bench_gpu.py --calibration FILE`).

    Raises:
        ConfigError, CheckpointError: the run cannot be placed, or does not fit; the calibration is of another card.
    """
    _require(config, RunConfig, "plan(load_recipe(...))")
    from blip3o_grpo.planning import make_plan

    return make_plan(config, _path(measured), card, tune, _path(calibration))


def write_report(run: str | Path, out: str | Path | None = None, warn: Callable[[str], None] = lambda _: None) -> Path:
    """Write the report of a run or a study, one HTML file with tables, curves and pictures, and return its path.

    Its numbers go to a JSON file of the same name beside it.

    Args:
        run: run folder or study folder, finished or not.
        out: HTML file; default: `report.html` in that folder.
        warn: called with one sentence for each file that is damaged; the report shows the rest, and says the same.

    Raises:
        ConfigError, PromptError: it is neither, or `out` cannot be written there.
    """
    if (whole_path(run) / "study.yaml").is_file():
        from blip3o_grpo.study.finished import report_study

        return report_study(run, out, warn)
    from blip3o_grpo.report import write_report as write

    return write(run, out, warn)


@_plain_errors
def ablate(study: StudyConfig, console: Console | None = None) -> StudyResult:
    """Train with several reward sets, measure each on all rewards, and say what is better; resumes by itself.

    Args:
        study: from `load_study`.
        console: as for `train`.

    Raises:
        ConfigError, PromptError, RewardError, CheckpointError: before the first run starts. A run that fails later
            stops no other: `StudyResult.failed` names it.
    """
    _require(study, StudyConfig, "ablate(load_study(...))")
    from rich.console import Console

    from blip3o_grpo.study.ablate import run_study

    return run_study(study, console or Console())


def rescore(
    run: str | Path,
    rewards: Sequence[str] = (),
    sections: str | Path | None = None,
    *,
    console: Console | None = None,
) -> Rescored:
    """Score a run's recorded images with other rewards: what would they have taught? Trains nothing.

    Args:
        run: run folder with recorded rollouts.
        rewards: the run's own rewards, registered names, or `module:Class`.
        sections: YAML file with reward sections, as in a recipe.
        console: where progress goes; default: nowhere.

    Raises:
        ConfigError, RewardError: unknown reward, or nothing recorded.
    """
    from blip3o_grpo.study.rescore import rescore as rescore_run

    return rescore_run(run, rewards, _path(sections), console)


@_plain_errors
def make_card(
    run: str | Path,
    *,
    suites: Sequence[str] | None = None,
    margins: Sequence[str] = (),
    overrides: Sequence[str] = (),
    out: str | Path | None = None,
    console: Console | None = None,
) -> Card:
    """Measure what training made worse: a run's starting policy against the trained one, one verdict a row.

    Writes an HTML page, its numbers as JSON beside it, and a model card, `README.md`, beside the trained weights.

    Args:
        run: folder of a finished run.
        suites: names of suites beside the run's own rewards; default: all that fit its held-out prompts.
        margins: smallest falls that matter, `VALUE` for all measures or `MEASURE=VALUE`; default: 0.05.
        overrides: changes of the run's settings, `section.key=value`.
        out: HTML file; default: `card.html` in the run folder.
        console: where progress goes; default: nowhere.

    Raises:
        ConfigError, CheckpointError, PromptError, RewardError: before any model loads.
    """
    from blip3o_grpo.card.make import make_card as make
    from blip3o_grpo.card.plan import Request

    asked = Request(None if suites is None else list(suites), list(margins), list(overrides))
    return make(run, asked, _path(out), console)


@_plain_errors
def verify_card(card: str | Path, run: str | Path | None = None, *, console: Console | None = None) -> list[CardCheck]:
    """Measure again what a card tells of, and compare row by row.

    Args:
        card: `card.html` or `card.json` of `make_card`.
        run: folder of the run, if it has moved; default: where the card says.
        console: where progress goes; default: nowhere.

    Raises:
        ConfigError: no card, or the policies have other weights than those it is about.
    """
    from blip3o_grpo.card.verify import verify_card as verify

    return verify(Path(card), run, console)


def _path(path: str | Path | None) -> Path | None:
    return None if path is None else Path(path)


def _subset(limit: int | None, limit_seed: int | None) -> Subset | None:
    """The draw that was asked for, if one was."""
    from blip3o_grpo.evaluation.benchmark_result import Subset

    if limit is None and limit_seed is not None:
        raise ConfigError(
            f"--limit-seed {limit_seed}: nothing is drawn without --limit; give it too, or leave this out"
        )
    return None if limit is None else Subset(limit, limit_seed or 0)


def _changes(values: dict[str, float | None]) -> list[str]:
    """Overrides for the values that were given."""
    return [f"{key}={value}" for key, value in values.items() if value is not None]


def _require(config: object, kind: type, usage: str) -> None:
    """The configuration is one: a recipe's name in its place would fail deep inside."""
    if not isinstance(config, kind):
        raise ConfigError(f"expected a {kind.__name__}, found {config!r:.100}; write {usage}")
