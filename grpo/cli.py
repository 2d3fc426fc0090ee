"""`blip3o-grpo`: every command of the project. Heavy imports happen inside the commands, so `--help` is quick."""

from __future__ import annotations

import importlib.metadata
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from blip3o_grpo.errors import one_line_errors
from blip3o_grpo.evaluation.cli import steps as compare_steps
from blip3o_grpo.hints import EvaluationCommand, SettingsCommand, StudyCommand, WarmstartCommand
from blip3o_grpo.prompt_data.cli import app as prompts_app
from blip3o_grpo.study.cli import ablate, rescore
from blip3o_grpo.terminal import show

if TYPE_CHECKING:
    from blip3o_grpo.configs import RunConfig

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
console = Console()

Overrides = Annotated[
    list[str] | None,
    typer.Argument(help="Changes to the file: section.key=value (list items by index: rewards.0.weight=2)."),
]
Policy = Annotated[str, typer.Option(help="`tiny`, a folder in the released layout, or a run folder.")]


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
    from blip3o_grpo.run.finished import finished_summary
    from blip3o_grpo.run.folder import RunFolder
    from blip3o_grpo.validate import check_inputs

    run_config = _recipe(config, overrides)
    summary = finished_summary(run_config)
    if summary is None:
        run = check_inputs(run_config)
        from blip3o_grpo.driver import train_checked

        summary = train_checked(run, console)
    table = Table("reward", "held-out before", "after", "change", title=f"{summary['steps']} steps")
    for name, before in summary["heldout"]["before"].items():
        after = summary["heldout"]["after"][name]
        table.add_row(name, f"{before:.3f}", f"{after:.3f}", f"{after - before:+.3f}")
    console.print(table)
    folder = RunFolder(run_config.run_dir)
    show(console, f"pictures: {folder.grids}/before.png and after.png")
    show(console, f"policy:   {folder.policy}")
    show(console, "summary:")
    show(console, str(folder.summary))  # alone on the last line, for scripts


def _recipe(config: str | None, overrides: list[str] | None) -> RunConfig:
    """The recipe with its changes; where the first argument is a change, those of the default recipe."""
    from blip3o_grpo.configs import DEFAULT_RECIPE, load_run_config
    from blip3o_grpo.configs.loader import exists

    overrides = list(overrides or [])
    if config and "=" in config and not exists(config):
        overrides.insert(0, config)
        config = None
    return load_run_config(config or DEFAULT_RECIPE, overrides)


@app.command(cls=SettingsCommand)
@one_line_errors
def plan(
    config: Annotated[str | None, typer.Argument(help="Run recipe (YAML); default: the shipped tiny_ocr.yaml.")] = None,
    overrides: Overrides = None,
    measured: Annotated[Path | None, typer.Option(help="Run folder to take measured times from.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """Show where a run's workers go, the memory of each GPU and the expected times; refuse what cannot fit."""
    run_config = _recipe(config, overrides)
    from blip3o_grpo.planning import make_plan, show_plan

    if as_json:
        typer.echo(json.dumps(make_plan(run_config, measured)))
    else:
        show_plan(run_config, console, measured)


@app.command()
@one_line_errors
def report(
    run: Annotated[str, typer.Argument(help="Run folder, finished or not.")],
    out: Annotated[Path | None, typer.Option(help="HTML file; default: report.html in the run folder.")] = None,
) -> None:
    """Write a run's report: one HTML file with tables, curves and before/after pictures."""
    from blip3o_grpo.report import write_report

    show(console, f"report: {write_report(run, out)}")


app.add_typer(prompts_app, name="prompts")
app.command(cls=StudyCommand)(ablate)
app.command()(rescore)
app.command("steps", cls=EvaluationCommand)(compare_steps)


@app.command(cls=WarmstartCommand)
@one_line_errors(resumes=True)
def warmstart(
    config: Annotated[str, typer.Argument(help="Warm-start recipe (YAML).")], overrides: Overrides = None
) -> None:
    """Train a policy on images and captions, before any reward is involved."""
    from blip3o_grpo.configs import load_warmstart_config

    warmstart_config = load_warmstart_config(config, overrides or [])
    from blip3o_grpo.warmstart import train_supervised

    train_supervised(warmstart_config, console)


@app.command()
@one_line_errors
def sample(
    prompts: Annotated[list[str], typer.Argument(help="Captions, or files of captions (.txt, .jsonl).")],
    policy: Policy = "tiny",
    images: Annotated[int, typer.Option(min=1, help="Images per prompt.")] = 4,
    out: Annotated[Path, typer.Option(help="PNG to write.")] = Path("sample.png"),
    seed: Annotated[int, typer.Option(min=0)] = 0,
    temperature: Annotated[float, typer.Option(min=0.01)] = 1.0,
    steps: Annotated[int, typer.Option(min=1, help="Diffusion steps.")] = 30,
    guidance: Annotated[float, typer.Option(min=1)] = 2.0,
) -> None:
    """Draw images for prompts and save them as one picture grid."""
    from blip3o_grpo.configs import ConfigError
    from blip3o_grpo.configs.loader import exists
    from blip3o_grpo.policies import PromptEncoder, check_headers
    from blip3o_grpo.rollout import load_prompts
    from blip3o_grpo.run.folder import policy_folder

    if out.suffix.lower() != ".png" or out.is_dir():
        raise ConfigError(f"--out {out}: pictures are written as a .png file")
    texts = [t for text in prompts for t in ([p.text for p in load_prompts(text)] if exists(text) else [text])]
    folder = check_headers(policy_folder(policy))
    encoder = PromptEncoder.from_pretrained(folder, plain=True)
    encoded = [encoder.encode(text) for text in texts]
    from blip3o_grpo.evaluation.grids import draw_grid
    from blip3o_grpo.policies import BLIP3oNext
    from blip3o_grpo.policies.blip3o_next.decoding import decode_completions
    from blip3o_grpo.policies.blip3o_next.sampling import sample_image_tokens

    model = BLIP3oNext.from_pretrained(folder)
    rows = []
    for number, (text, ids) in enumerate(zip(texts, encoded, strict=True)):
        batch = [ids] * images
        tokens = sample_image_tokens(model, batch, temperature=temperature, seed=seed + number)
        seeds = range(seed, seed + images)
        pictures = decode_completions(model, batch, tokens, seeds, num_steps=steps, guidance_scale=guidance)
        rows.append((text, list(pictures.numpy()), ()))
    out.parent.mkdir(parents=True, exist_ok=True)
    draw_grid(rows).save(out)
    show(console, f"{len(rows)} prompts, {images} images each: {out}")


@app.command("eval", cls=EvaluationCommand)
@one_line_errors
def evaluate(
    policy: Annotated[str, typer.Argument(help="`tiny`, a folder in the released layout, or a run folder.")],
    suite: Annotated[str | None, typer.Option(help="What to measure: a registered suite.")] = None,
    compare: Annotated[str | None, typer.Option(help="A second policy, on the same prompts and noise.")] = None,
    config: Annotated[str | None, typer.Option(help="Recipe with the settings; default: those of the run.")] = None,
    prompts: Annotated[Path | None, typer.Option(help="Prompt file, all of it; default: the run's held-out.")] = None,
    num_prompts: Annotated[int | None, typer.Option(min=1, help="Only so many prompts.")] = None,
    images: Annotated[int | None, typer.Option(min=1, help="Images per prompt.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
    out: Annotated[Path | None, typer.Option(help="Also save pictures as a PNG grid.")] = None,
    results: Annotated[Path | None, typer.Option(help="Also save a benchmark's own results (.jsonl, images).")] = None,
    overrides: Annotated[list[str] | None, typer.Option("--set", help="Change a setting: section.key=value.")] = None,
) -> None:
    """Measure a policy, or two, on held-out prompts, with the seeds and settings that training uses."""
    from blip3o_grpo.evaluation.suites import run_suite
    from blip3o_grpo.evaluation.tables import suite_tables
    from blip3o_grpo.rewards.suites import DEFAULT_SUITE

    counts = {"num_prompts": num_prompts, "images_per_prompt": images}
    changes = [f"evaluation.{name}={value}" for name, value in counts.items() if value is not None]
    result = run_suite(
        suite or DEFAULT_SUITE,
        policy,
        compare=compare,
        recipe=config,
        prompts=prompts,
        grid=out,
        results=results,
        overrides=[*(overrides or []), *changes],
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
