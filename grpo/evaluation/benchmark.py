"""`blip3o-grpo eval` of suites with official data: a policy's images, a judge's answers, the published table.

Results of earlier runs, saved as JSON, take the place of a policy on either side of a comparison. All that can be wrong
is found before a model loads or a worker starts, the judge's server included.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from blip3o_grpo.configs import DEFAULT_RECIPE, ConfigError, RewardSection, RunConfig
from blip3o_grpo.configs.atomic import require_writable
from blip3o_grpo.evaluation.benchmark_options import SUFFIX
from blip3o_grpo.evaluation.benchmark_result import (
    BenchmarkReport,
    BenchmarkResult,
    Subset,
    check_measured_alike,
    compare,
    draw_subset,
    load_result,
    part_of,
)
from blip3o_grpo.evaluation.grids import save_grid
from blip3o_grpo.evaluation.suites import (
    check_model,
    check_policy,
    measure,
    measuring_config,
    output,
    scored_prompts,
)
from blip3o_grpo.planning.guidance import check_guidance
from blip3o_grpo.progress import activity
from blip3o_grpo.rewards.benchmarks import RECORDED_WORDS, Benchmark, BenchmarkData, BenchmarkPrompt
from blip3o_grpo.rewards.judge.client import Judge
from blip3o_grpo.rewards.judge.options import judge_options, load_judge
from blip3o_grpo.rewards.judge.usage import Usage, total
from blip3o_grpo.rewards.scored_prompt import ScoredPrompt
from blip3o_grpo.rewards.suites import Suite, find_suite
from blip3o_grpo.rollout import Prompt
from blip3o_grpo.terminal import show
from blip3o_grpo.validate import check_rewards

RECORDED = (".txt", ".jsonl")
"""Of answers in a benchmark's own format."""


def run_benchmark(
    suite: str,
    policy: str,
    *,
    other: str | None = None,
    data: Path | None = None,
    judge: Path | None = None,
    subset: Subset | None = None,
    options: Mapping[str, Any] | None = None,
    recipe: Path | None = None,
    grid: Path | None = None,
    results: Path | None = None,
    overrides: Sequence[str] = (),
    console: Console | None = None,
) -> BenchmarkReport:
    """Measure a policy, and compare it with another, or with a saved result.

    Args:
        suite: a registered one with official data.
        policy: `tiny`, a folder in the released layout, a run folder, a saved result (.json), or answers that were
            recorded in the benchmark's own format (.txt, .jsonl).
        other: a second one.
        data: the benchmark's official data; None: what the project ships.
        judge: YAML file that says which judge is asked; None: that of the settings' reward of this kind.
        subset: measure on so many prompts only.
        options: of the suite.
        recipe: YAML file with the settings; default: those of the first of both that is a run folder, else the suite's.
        grid: PNG file for the pictures; those of `other` go to `NAME-other.png`.
        results: file for the benchmark's own result format; that of `other` goes to `NAME-other`.
        overrides: changes of settings, `section.key=value`.
        console: where progress goes; None: nowhere.

    Raises:
        ConfigError, CheckpointError, PromptError, RewardError, RunFileError: before any model loads.
    """
    console = console or Console(quiet=True)
    found = find_suite(suite)
    benchmark = found.benchmark
    if benchmark is None:
        raise ConfigError(f"suite {suite!r} has no official data; it measures on prompts of the settings")
    sides = (policy,) if other is None else (policy, other)
    saved = {side: _load(side, suite) for side in sides if side.endswith(SUFFIX)}
    recorded = {side for side in sides if side.endswith(RECORDED)}
    if len(saved) == len(set(sides)):
        if data or judge or subset or options or recipe or grid or results or overrides:
            raise ConfigError(f"{' and '.join(sides)}: saved results are compared as they are; leave other options out")
        return _report([saved[side] for side in sides])
    measured_sides = [side for side in sides if side not in saved and side not in recorded]
    read = benchmark.read(data, options or {})
    chosen = draw_subset(read.prompts, subset)
    subset = part_of(len(read.prompts), subset)
    asked = None if judge is None else load_judge(judge)
    for side in recorded:
        saved[side] = _score_recorded(suite, found, side, read, chosen, subset, asked)
    if not measured_sides:
        if recipe or grid or results or overrides:
            raise ConfigError(f"{' and '.join(sides)}: no policy is measured; leave settings and output files out")
        return _report([saved[side] for side in sides])
    prompts = [Prompt(prompt.id, prompt.text, dict(prompt.metadata)) for prompt in chosen]
    config = _config(suite, found, measured_sides, read, asked, recipe, overrides, len(prompts))
    check_rewards(config)
    for side in saved.values():
        _check_saved(side, suite, config, benchmark, read, subset, prompts)
    paths = [check_policy(side, prompts, config) for side in measured_sides]
    _check_outputs(found, benchmark, config, grid, results, len(measured_sides))
    with activity(console, "asking for the judge"):
        tried = Judge(judge_options(config.rewards[0].options["judge"], "judge")).try_out()
    show(console, f"suite {suite}: {len(prompts)} of {len(read.prompts)} prompts of {read.file}")
    with activity(console, "loading libraries"):
        for path in paths:
            check_model(path)
            check_guidance(config, path)
        from blip3o_grpo.cluster import ray_cluster

    measured: dict[str, BenchmarkResult] = {}
    with ExitStack() as stack:
        with activity(console, "starting Ray"):
            stack.enter_context(ray_cluster(config))
        for index, (side, path) in enumerate(zip(measured_sides, paths, strict=True)):
            groups = measure(config, path, prompts, explain=True, console=console)
            scored = scored_prompts(groups, config.rewards[0].name)
            if grid is not None:
                save_grid(output(grid, index), groups[: config.evaluation.grid_prompts])
            if results is not None:
                found.results.write(output(results, index), scored)
            result = result_of(suite, side, benchmark, read, subset, _identity(config), scored)
            measured[side] = result if index else replace(result, usage=result.usage + tried)
    return _report([saved.get(side) or measured[side] for side in sides])


def result_of(
    suite: str,
    policy: str,
    benchmark: Benchmark,
    read: BenchmarkData,
    subset: Subset | None,
    judge: dict[str, str],
    scored: Sequence[ScoredPrompt],
) -> BenchmarkResult:
    """The result of scored and explained prompts, each with equally many images."""
    usages = (Usage(**explained["usage"]) for prompt in scored for explained in prompt.explanations)
    return BenchmarkResult(
        suite=suite,
        policy=policy,
        judge=judge,
        data=_data(benchmark, read),
        protocol=_protocol(read),
        subset=subset,
        images_per_prompt=len(scored[0].scores),
        prompts=[prompt.id for prompt in scored],
        columns=list(benchmark.columns(scored, read.protocol)),
        usage=total(usages),
        notes=[*read.notes, *((read.instructions.note,) if read.instructions else ())],
    )


def _identity(config: RunConfig) -> dict[str, str]:
    return judge_options(config.rewards[0].options["judge"], "judge").identity


def _score_recorded(
    name: str,
    suite: Suite,
    side: str,
    read: BenchmarkData,
    chosen: Sequence[BenchmarkPrompt],
    subset: Subset | None,
    judge: Mapping[str, Any] | None,
) -> BenchmarkResult:
    """The result of answers that somebody recorded in the official format; nobody is asked anything."""
    if suite.results is None or suite.results.read is None:
        raise ConfigError(f"{side}: answers that were recorded cannot be read in suite {name!r}")
    if judge is None:
        raise ConfigError(f"{side}: who gave these answers? --judge names a YAML file with url, model and version")
    measured = {prompt.id for prompt in chosen}
    answers = suite.results.read(Path(side), chosen, [one for one in read.prompts if one.id not in measured])
    words = read.instructions if read.instructions and read.instructions.given else RECORDED_WORDS
    read = replace(read, instructions=words, notes=(*read.notes, *answers.notes))
    identity = judge_options(judge, "judge").identity
    return result_of(name, side, suite.benchmark, read, subset, identity, answers.prompts)


def _protocol(read: BenchmarkData) -> dict[str, Any]:
    words = {} if read.instructions is None else {"instructions": read.instructions.digest}
    return {**read.protocol, **words}


def _data(benchmark: Benchmark, read: BenchmarkData) -> dict[str, Any]:
    return {
        "file": str(read.file),
        "digest": read.digest,
        "prompts": len(read.prompts) + read.left_out,
        "official": benchmark.num_prompts,
    }


def _config(
    name: str,
    suite: Suite,
    policies: Sequence[str],
    read: BenchmarkData,
    judge: Mapping[str, Any] | None,
    recipe: Path | None,
    overrides: Sequence[str],
    num_prompts: int,
) -> RunConfig:
    """Settings of the measurement: the benchmark's number of images unless the user says otherwise, its one reward."""
    official = f"evaluation.images_per_prompt={suite.benchmark.images_per_prompt}"
    default = DEFAULT_RECIPE.parent / suite.recipe
    config = measuring_config(name, policies, recipe, default, None, [official, *overrides])
    asked = judge if judge is not None else _judge_of(config, suite)
    if asked is None:
        raise ConfigError(f"suite {name!r} needs a judge: --judge names a YAML file with url, model and version")
    reward = RewardSection(name=suite.reward, options={"judge": asked, **read.reward_options})
    evaluation = config.evaluation.model_copy(update={"num_prompts": num_prompts})
    prompts = config.prompts.model_copy(update={"train": str(read.file), "heldout": str(read.file)})
    return config.model_copy(update={"rewards": (reward,), "evaluation": evaluation, "prompts": prompts})


def _judge_of(config: RunConfig, suite: Suite) -> Mapping[str, Any] | None:
    """The judge of the settings' own reward of this kind, or of its reward `judge`."""
    for target in (suite.reward, "judge"):
        for reward in config.rewards:
            if reward.target == target and "judge" in reward.options:
                return reward.options["judge"]
    return None


def _load(path: str, suite: str) -> BenchmarkResult:
    result = load_result(Path(path))
    if result.suite != suite:
        raise ConfigError(f"{path}: a result of suite {result.suite!r}, not of {suite!r}")
    return replace(result, policy=path)


def _check_saved(
    saved: BenchmarkResult,
    suite: str,
    config: RunConfig,
    benchmark: Benchmark,
    read: BenchmarkData,
    subset: Subset | None,
    prompts: Sequence[Prompt],
) -> None:
    """Refuse a comparison with a saved result before anything is measured for it."""
    planned = BenchmarkResult(
        suite=suite,
        policy="what is measured now",
        judge=_identity(config),
        data=_data(benchmark, read),
        protocol=_protocol(read),
        subset=subset,
        images_per_prompt=config.evaluation.images_per_prompt,
        prompts=[prompt.id for prompt in prompts],
        columns=[],
        usage=Usage(),
        notes=[],
    )
    check_measured_alike(planned, saved)


def _check_outputs(
    suite: Suite, benchmark: Benchmark, config: RunConfig, grid: Path | None, results: Path | None, count: int
) -> None:
    if grid is not None and (grid.suffix.lower() != ".png" or grid.is_dir()):
        raise ConfigError(f"{grid}: pictures are written as a .png file")
    for file in (grid, results):
        if file is not None:
            require_writable(file)
    if results is None:
        return
    if suite.results is None:
        raise ConfigError("results are in a benchmark's own format; this suite has none")
    images = config.evaluation.images_per_prompt
    if benchmark.most_images is not None and images > benchmark.most_images:
        raise ConfigError(
            f"--results: {suite.results.name} files hold {benchmark.most_images} images of a prompt, not {images}; "
            "give --images, or leave --results out"
        )
    for index in range(count):
        suite.results.check(output(results, index))


def _report(results: Sequence[BenchmarkResult]) -> BenchmarkReport:
    return BenchmarkReport(tuple(results), compare(*results) if len(results) == 2 else None)
