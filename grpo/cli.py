"""`blip3o-grpo`: every command of the project. Heavy imports happen inside the commands, so `--help` is quick."""

from __future__ import annotations

import importlib.metadata
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from blip3o_grpo import library_output  # noqa: F401
from blip3o_grpo.card.cli import card
from blip3o_grpo.errors import one_line_errors
from blip3o_grpo.evaluation.cli import steps as compare_steps
from blip3o_grpo.hints import EvaluationCommand, Program, SettingsCommand, StudyCommand, WarmstartCommand
from blip3o_grpo.prompt_data.cli import app as prompts_app
from blip3o_grpo.study.cli import ablate, rescore
from blip3o_grpo.terminal import show

if TYPE_CHECKING:
    from blip3o_grpo.configs import RunConfig

app = typer.Typer(
    cls=Program,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
console = Console()
errors = Console(stderr=True)

Overrides = Annotated[
    list[str] | None,
    typer.Argument(help="Changes to the file: section.key=value (list items by index: rewards.0.weight=2)."),
]
POLICY_HELP = "`tiny`, `tiny_rough`, a folder in the released layout, or a run folder."
Policy = Annotated[str, typer.Option(help=POLICY_HELP)]


def _show_version(asked: bool) -> None:
    if asked:
        typer.echo(f"blip3o-grpo {importlib.metadata.version('blip3o-grpo')}")
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """GRPO fine-tuning of BLIP3o-NEXT image generators."""


@app.command(cls=SettingsCommand)
@one_line_errors(resumes=True)
def train(
    config: Annotated[str | None, typer.Argument(help="Run recipe (YAML); default: the shipped tiny_ocr.yaml.")] = None,
    overrides: Overrides = None,
) -> None:
    """Fine-tune a policy with GRPO; on a folder that holds checkpoints of the same configuration, resume."""
    from blip3o_grpo import api

    result = api.train(_recipe(config, overrides), console)
    from blip3o_grpo.evaluation.tables import heldout_table

    console.print(heldout_table(result))
    show(console, f"pictures: {result.pictures[0]} and after.png")
    show(console, f"policy:   {result.policy}")
    show(console, "summary:")
    show(console, str(result.summary))  # alone on the last line, for scripts


def _recipe(config: str | None, overrides: list[str] | None) -> RunConfig:
    """The recipe with its changes; where the first argument is a change, those of the default recipe."""
    from blip3o_grpo import api
    from blip3o_grpo.configs import DEFAULT_RECIPE
    from blip3o_grpo.configs.loader import exists

    overrides = list(overrides or [])
    if config and "=" in config and not exists(config):
        overrides.insert(0, config)
        config = None
    return api.load_recipe(DEFAULT_RECIPE if config is None else config, *overrides)


@app.command(cls=SettingsCommand)
@one_line_errors
def plan(
    config: Annotated[str | None, typer.Argument(help="Run recipe (YAML); default: the shipped tiny_ocr.yaml.")] = None,
    overrides: Overrides = None,
    measured: Annotated[Path | None, typer.Option(help="Run folder to take measured times from.")] = None,
    card: Annotated[str | None, typer.Option(help="Compute times for this GPU instead: a100, h100, h200.")] = None,
    calibration: Annotated[
        Path | None, typer.Option(help="File of times measured on that GPU (scripts/bench_gpu.py).")
    ] = None,
    tune: Annotated[int | None, typer.Option(help="Propose the fastest placements on so many GPUs.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """Show where a run's workers go, the memory of each GPU and the expected times; refuse what cannot fit."""
    from blip3o_grpo import api

    recipe = _recipe(config, overrides)
    planned = api.plan(recipe, measured, card, tune, calibration)
    if as_json:
        typer.echo(json.dumps(planned))
    else:
        from blip3o_grpo.configs.inert import inert_options
        from blip3o_grpo.planning import show_plan
        from blip3o_grpo.progress import print_notice

        show_plan(planned, console)
        for sentence in inert_options(recipe):
            print_notice(console, sentence)


@app.command()
@one_line_errors
def report(
    run: Annotated[str, typer.Argument(help="Run folder or study folder, finished or not.")],
    out: Annotated[Path | None, typer.Option(help="HTML file; default: report.html in the run folder.")] = None,
) -> None:
    """Write the report of a run or a study: one HTML file with tables, curves and pictures."""
    from blip3o_grpo import api
    from blip3o_grpo.progress import print_notice

    show(console, f"report: {api.write_report(run, out, lambda text: print_notice(errors, text))}")


@app.command()
@one_line_errors
def recipes() -> None:
    """List the recipes and studies that come with the project; commands take them by these names."""
    from rich.table import Table

    from blip3o_grpo.configs.shipped import all_shipped

    table = Table("command", "name", "what it is")
    for recipe in all_shipped():
        table.add_row(recipe.command, recipe.name, recipe.purpose)
    console.print(table)


app.add_typer(prompts_app, name="prompts")
app.command(cls=StudyCommand)(ablate)
app.command()(rescore)
app.command("steps", cls=EvaluationCommand)(compare_steps)
app.command(cls=EvaluationCommand)(card)


@app.command(cls=WarmstartCommand)
@one_line_errors(resumes=True)
def warmstart(
    config: Annotated[str, typer.Argument(help="Warm-start recipe (YAML).")], overrides: Overrides = None
) -> None:
    """Train a policy on images and captions, before any reward is involved."""
    from blip3o_grpo import api

    api.warm_start(api.load_warmstart(config, *(overrides or [])), console)


@app.command()
@one_line_errors
def sample(
    prompts: Annotated[list[str], typer.Argument(help="Captions, or files of captions (.txt, .jsonl).")],
    policy: Policy = "tiny",
    images: Annotated[int, typer.Option(min=1, help="Images per prompt.")] = 4,
    out: Annotated[Path, typer.Option(help="PNG to write.")] = Path("sample.png"),
    seed: Annotated[int, typer.Option(min=0)] = 0,
    temperature: Annotated[float, typer.Option(min=0.01)] = 1.0,
    top_p: Annotated[float, typer.Option(help="Likeliest image tokens with this probability; the demo's: 0.95.")] = 1.0,
    top_k: Annotated[int, typer.Option(min=0, help="So many likeliest; 0: all; the demo's: 1200.")] = 0,
    steps: Annotated[int, typer.Option(min=1, help="Diffusion steps.")] = 30,
    guidance: Annotated[float, typer.Option(min=1)] = 2.0,
) -> None:
    """Draw images for prompts and save them as one picture grid."""
    import numpy as np

    from blip3o_grpo import api
    from blip3o_grpo.configs import ConfigError
    from blip3o_grpo.configs.atomic import require_writable
    from blip3o_grpo.configs.loader import exists
    from blip3o_grpo.rollout import load_prompts

    if out.suffix.lower() != ".png" or out.is_dir():
        raise ConfigError(f"--out {out}{' is a folder' if out.is_dir() else ''}: pictures are written as a .png file")
    require_writable(out)
    texts = [t for text in prompts for t in ([p.text for p in load_prompts(text)] if exists(text) else [text])]
    drawn = api.sample(
        policy,
        texts,
        images=images,
        seed=seed,
        temperature=temperature,
        top_p=top_p,
        top_k=top_k,
        steps=steps,
        guidance=guidance,
        console=console,
    )
    from blip3o_grpo.evaluation.grids import draw_grid

    out.parent.mkdir(parents=True, exist_ok=True)
    rows = [(text, list(map(np.asarray, pictures)), ()) for text, pictures in zip(texts, drawn, strict=True)]
    draw_grid(rows).save(out)
    show(console, f"{len(texts)} prompts, {images} images each: {out}")


@app.command("eval", cls=EvaluationCommand)
@one_line_errors
def evaluate(
    policy: Annotated[str, typer.Argument(help=POLICY_HELP)],
    suite: Annotated[str | None, typer.Option(help="What to measure: a registered suite.")] = None,
    compare: Annotated[str | None, typer.Option(help="A second policy, on the same prompts and noise.")] = None,
    config: Annotated[str | None, typer.Option(help="Recipe with the settings; default: those of the run.")] = None,
    prompts: Annotated[Path | None, typer.Option(help="Prompt file, all of it; default: the run's held-out.")] = None,
    num_prompts: Annotated[int | None, typer.Option(min=1, help="Only so many prompts, the first.")] = None,
    images: Annotated[int | None, typer.Option(min=1, help="Images per prompt.")] = None,
    temperature: Annotated[float | None, typer.Option(help="Of the draws; default: the settings'.")] = None,
    top_p: Annotated[float | None, typer.Option(help="Likeliest image tokens with this probability.")] = None,
    top_k: Annotated[int | None, typer.Option(help="So many likeliest image tokens; 0: all.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
    out: Annotated[Path | None, typer.Option(help="Also save pictures as a PNG grid.")] = None,
    results: Annotated[Path | None, typer.Option(help="Also save a benchmark's own result files and images.")] = None,
    data: Annotated[
        Path | None, typer.Option(help="A benchmark's official data, or a suite's texts or questions.")
    ] = None,
    judge: Annotated[Path | None, typer.Option(help="YAML file with a judge's url, model and version.")] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="So many prompts, texts or questions, drawn at random.")
    ] = None,
    limit_seed: Annotated[int | None, typer.Option(help="Of --limit; default: 0.")] = None,
    suite_option: Annotated[
        list[str] | None, typer.Option(help="A benchmark's option, NAME=VALUE; repeatable.")
    ] = None,
    overrides: Annotated[list[str] | None, typer.Option("--set", help="Change a setting: section.key=value.")] = None,
) -> None:
    """Measure a policy, or two, on held-out prompts, with the seeds and settings that training uses."""
    from blip3o_grpo import api
    from blip3o_grpo.evaluation.benchmark_options import is_benchmark, is_reading, read_options, refuse_options
    from blip3o_grpo.evaluation.tables import suite_tables

    only_benchmarks = {"--data": data, "--judge": judge, "--suite-option": suite_option}
    of_prompts = {"--prompts": prompts, "--num-prompts": num_prompts}
    if suite is not None and is_reading(suite):
        of_images = {"--config": config, "--images": images, "--temperature": temperature, "--top-p": top_p}
        of_images |= {"--top-k": top_k, "--out": out, "--results": results, "--judge": judge, "--set": overrides}
        not_theirs = {**of_prompts, **of_images, "--suite-option": suite_option}
        refuse_options(not_theirs, f"suite {suite!r} draws no images; it takes --data, --limit and --compare")
        read = api.read_suite(
            policy,
            suite,
            compare=compare,
            data=data,
            limit=limit,
            limit_seed=limit_seed,
            console=Console(stderr=True) if as_json else console,
        )
        from blip3o_grpo.reading.tables import reading_json, reading_table

        if as_json:
            typer.echo(json.dumps(reading_json(read)))
        else:
            console.print(reading_table(read))
        return
    if suite is not None and is_benchmark(suite):
        refuse_options(of_prompts, f"suite {suite!r} has prompts of its own; it takes --data and --limit")
        draws = {"temperature": temperature, "top_p": top_p, "top_k": top_k}
        changes = [f"evaluation.{name}={value}" for name, value in draws.items() if value is not None]
        report = api.benchmark(
            policy,
            suite,
            compare=compare,
            data=data,
            judge=judge,
            limit=limit,
            limit_seed=limit_seed,
            options=read_options(suite_option or ()),
            recipe=config,
            overrides=[*(overrides or ()), *changes],
            images=images,
            grid=out,
            results=results,
            console=Console(stderr=True) if as_json else console,
        )
        if as_json:
            typer.echo(json.dumps(report.to_dict()))
        else:
            from blip3o_grpo.evaluation.benchmark_tables import benchmark_tables

            console.print(benchmark_tables(report))
        return
    refuse_options(only_benchmarks, f"suite {suite or 'ocr'!r} has no official data; it takes --prompts and --limit")
    result = api.evaluate(
        policy,
        suite,
        compare=compare,
        recipe=config,
        overrides=overrides or [],
        prompts=prompts,
        num_prompts=num_prompts,
        limit=limit,
        limit_seed=limit_seed,
        images=images,
        temperature=temperature,
        top_p=top_p,
        top_k=top_k,
        grid=out,
        results=results,
        console=Console(stderr=True) if as_json else console,
    )
    if as_json:
        typer.echo(json.dumps(result.to_dict()))
    else:
        console.print(suite_tables(result))


@app.command(cls=SettingsCommand)
@one_line_errors
def doctor(
    config: Annotated[str | None, typer.Argument(help="Run recipe (YAML); default: the shipped tiny_ocr.yaml.")] = None,
    overrides: Overrides = None,
    policy: Annotated[str | None, typer.Option(help="Another policy or run folder than the recipe's.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Only versions, devices and files; start no workers.")] = False,
    num_prompts: Annotated[int, typer.Option(min=1, help="Prompts of the reward test.")] = 4,
) -> None:
    """Check a recipe on this machine: versions, devices, weights, sampler/trainer agreement, what moves each reward."""
    from blip3o_grpo.doctor import doctor_config, examine
    from blip3o_grpo.validate import check_inputs

    run = check_inputs(doctor_config(_recipe(config, overrides), policy))
    if not examine(run, console, quick=quick, num_prompts=num_prompts):
        raise typer.Exit(1)


if __name__ == "__main__":
    app()
