"""`blip3o-grpo`: every command of the project. Heavy imports happen inside the commands, so `--help` is quick."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from blip3o_grpo.errors import one_line_errors
from blip3o_grpo.evaluation.cli import steps as compare_steps
from blip3o_grpo.prompt_data.cli import app as prompts_app
from blip3o_grpo.study.cli import ablate, rescore

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")

app = typer.Typer(
    help="GRPO fine-tuning of BLIP3o-NEXT image generators.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
console = Console()

Overrides = Annotated[
    list[str] | None,
    typer.Argument(help="Changes to the file: section.key=value (list items by index: rewards.0.weight=2)."),
]
Policy = Annotated[str, typer.Option(help="`tiny`, a folder in the released layout, or a run folder.")]


@app.command()
@one_line_errors
def train(
    config: Annotated[str | None, typer.Argument(help="Run recipe (YAML); default: the shipped tiny_ocr.yaml.")] = None,
    overrides: Overrides = None,
) -> None:
    """Fine-tune a policy with GRPO; on a folder that holds checkpoints of the same configuration, resume."""
    from blip3o_grpo.configs import DEFAULT_RECIPE, load_run_config

    overrides = list(overrides or [])
    if config and "=" in config and not Path(config).exists():
        overrides.insert(0, config)
        config = None
    run_config = load_run_config(config or DEFAULT_RECIPE, overrides)
    from blip3o_grpo.driver import train as run_training
    from blip3o_grpo.evaluation.tables import heldout_table
    from blip3o_grpo.run.folder import RunFolder

    summary = run_training(run_config, console)
    console.print(heldout_table(summary))
    folder = RunFolder(run_config.run_dir)
    console.print(f"pictures: {folder.grids}/before.png and after.png", soft_wrap=True, highlight=False)
    console.print(f"policy:   {folder.policy}", soft_wrap=True, highlight=False)
    console.print("summary:", highlight=False)
    console.print(str(folder.summary), soft_wrap=True, highlight=False)  # alone on the last line, for scripts


@app.command()
@one_line_errors
def plan(
    config: Annotated[str, typer.Argument(help="Run recipe (YAML).")],
    overrides: Overrides = None,
    measured: Annotated[Path | None, typer.Option(help="Run folder to take measured times from.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """Show where a run's workers go, the memory of each GPU and the expected times; refuse what cannot fit."""
    from blip3o_grpo.configs import load_run_config

    run_config = load_run_config(config, overrides or [])
    from blip3o_grpo.planning import make_plan, show_plan

    if as_json:
        typer.echo(json.dumps(make_plan(run_config, measured)))
    else:
        show_plan(run_config, console, measured)


@app.command()
@one_line_errors
def report(
    run: Annotated[str, typer.Argument(help="Run folder or study folder, finished or not.")],
    out: Annotated[Path | None, typer.Option(help="HTML file; default: report.html in the run folder.")] = None,
) -> None:
    """Write the report of a run or a study: one HTML file with tables, curves and pictures."""
    from blip3o_grpo.report import write_report
    from blip3o_grpo.study.finished import report_study

    is_study = (Path(run).expanduser() / "study.yaml").is_file()
    written = report_study(run, out) if is_study else write_report(run, out)
    console.print(f"report: {written}", soft_wrap=True, highlight=False)


app.add_typer(prompts_app, name="prompts")
app.command()(ablate)
app.command()(rescore)
app.command("steps")(compare_steps)


@app.command()
@one_line_errors
def warmstart(
    config: Annotated[str, typer.Argument(help="Warm-start recipe (YAML).")], overrides: Overrides = None
) -> None:
    """Train a policy on images and captions, before any reward is involved."""
    from blip3o_grpo.configs import load_warmstart_config

    warmstart_config = load_warmstart_config(config, overrides or [])
    from blip3o_grpo.warmstart import supervised as supervised

    supervised.run(warmstart_config)


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
    from blip3o_grpo.evaluation.grids import draw_grid
    from blip3o_grpo.policies import BLIP3oNext
    from blip3o_grpo.policies.blip3o_next.decoding import decode_completions
    from blip3o_grpo.policies.blip3o_next.sampling import sample_image_tokens
    from blip3o_grpo.rollout import load_prompts
    from blip3o_grpo.run.folder import policy_folder

    if out.suffix.lower() != ".png" or out.is_dir():
        raise ConfigError(f"--out {out}: pictures are written as a .png file")
    texts = [t for text in prompts for t in ([p.text for p in load_prompts(text)] if Path(text).is_file() else [text])]
    model = BLIP3oNext.from_pretrained(policy_folder(policy))
    encoded = [model.prompts.encode(text) for text in texts]
    rows = []
    for number, (text, ids) in enumerate(zip(texts, encoded, strict=True)):
        batch = [ids] * images
        tokens = sample_image_tokens(model, batch, temperature=temperature, seed=seed + number)
        seeds = range(seed, seed + images)
        pictures = decode_completions(model, batch, tokens, seeds, num_steps=steps, guidance_scale=guidance)
        rows.append((text, list(pictures.numpy()), ()))
    out.parent.mkdir(parents=True, exist_ok=True)
    draw_grid(rows).save(out)
    console.print(f"{len(rows)} prompts, {images} images each: {out}", soft_wrap=True, highlight=False)


@app.command("eval")
@one_line_errors
def evaluate(
    policy: Annotated[str, typer.Argument(help="`tiny`, a folder in the released layout, or a run folder.")],
    suite: Annotated[str, typer.Option(help="What to measure: `ocr` or `geneval`.")] = "ocr",
    compare: Annotated[str | None, typer.Option(help="A second policy, on the same prompts and noise.")] = None,
    config: Annotated[str | None, typer.Option(help="Recipe with the settings; default: those of the run.")] = None,
    prompts: Annotated[Path | None, typer.Option(help="Prompt file, all of it; default: the run's held-out.")] = None,
    num_prompts: Annotated[int | None, typer.Option(min=1, help="Only so many prompts.")] = None,
    images: Annotated[int | None, typer.Option(min=1, help="Images per prompt.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
    out: Annotated[Path | None, typer.Option(help="Also save pictures as a PNG grid.")] = None,
    results: Annotated[Path | None, typer.Option(help="Also save GenEval's official results (.jsonl, images).")] = None,
    overrides: Annotated[list[str] | None, typer.Option("--set", help="Change a setting: section.key=value.")] = None,
) -> None:
    """Measure a policy, or two, on held-out prompts, with the seeds and settings that training uses."""
    from blip3o_grpo.evaluation.suites import run_suite
    from blip3o_grpo.evaluation.tables import suite_tables

    counts = {"num_prompts": num_prompts, "images_per_prompt": images}
    changes = [f"evaluation.{name}={value}" for name, value in counts.items() if value is not None]
    result = run_suite(
        suite,
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


@app.command()
@one_line_errors
def doctor(
    policy: Policy = "tiny",
    quick: Annotated[bool, typer.Option("--quick", help="Only versions, devices and files; start no workers.")] = False,
    num_prompts: Annotated[int, typer.Option(min=1, help="Prompts of the reward test.")] = 4,
) -> None:
    """Check the installation: versions, devices, weights, sampler/trainer agreement, and what moves the reward."""
    from blip3o_grpo.doctor import examine

    if not examine(console, policy, quick=quick, num_prompts=num_prompts):
        raise typer.Exit(1)


if __name__ == "__main__":
    app()
