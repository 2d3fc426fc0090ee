"""What does it save to compute logits of the image tokens only? Against the whole vocabulary, in one run.

    .venv/bin/python scripts/bench_logits.py [--json PATH] [--policy tiny|FOLDER | --scale 0.25] [--part head|engine]

1. The head alone at the released sizes (hidden 2048, 217,210 tokens of which 65,536 are image tokens, random weights):
   one step of 64 sequences, from hidden states to drawn tokens and their log-probabilities, as vLLM computes it.
2. End to end on a policy (with `--scale`: a random one of that scale, `scripts/make_full_size.py`): our engine against
   vLLM's own Qwen3 with a mask over everything but image tokens. Each engine has a process, and they take turns.
Medians of the repeats count, after one warm-up of each.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table

from blip3o_grpo.policies import ImageTokens, PromptEncoder, image_tokens, load_config, resolve_policy_path
from blip3o_grpo.policies.blip3o_next import released
from blip3o_grpo.rollout.workers.engine import (
    EngineIds,
    EngineSettings,
    engine_environment,
    engine_options,
    start_engine,
)

sys.path.insert(0, str(Path(__file__).parents[1]))

from scripts.make_full_size import make  # noqa: E402

SEQUENCES = 64
SETTINGS = EngineSettings("float32", SEQUENCES, 0)
OURS, WHOLE = "image rows", "whole vocabulary, masked"


def alternate(runs: dict[str, Callable[[], Any]], repeats: int) -> dict[str, list[float]]:
    """Wall seconds of every run, `repeats` times in turn, after one warm-up each."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for repeat in range(repeats + 1):
        for name, run in runs.items():
            started = time.perf_counter()
            run()
            if repeat:
                seconds[name].append(time.perf_counter() - started)
    return seconds


def draw(logits: torch.Tensor, generators: Sequence[torch.Generator]) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens and log-probabilities `[B]`: exponential races, one generator a sequence, as in vLLM."""
    logprobs = logits.log_softmax(-1, dtype=torch.float32)
    races = torch.empty_like(logprobs)
    for row, generator in zip(races, generators, strict=True):
        row.exponential_(generator=generator)
    tokens = logprobs.exp().div_(races).argmax(-1)
    return tokens, logprobs.gather(-1, tokens[:, None])[:, 0]


@torch.inference_mode()
def bench_head(repeats: int) -> dict[str, list[float]]:
    """Part 1 of the module's text."""
    values = released.config_values(1.0)
    tokens = ImageTokens(values["image_start_token_id"], values["num_image_tokens"], num_tokens=1)
    generator = torch.Generator().manual_seed(0)
    head = torch.empty(values["vocab_size"], values["hidden_size"]).normal_(0, 0.02, generator=generator)
    rows = head[tokens.start : tokens.stop]
    hidden = torch.randn(SEQUENCES, values["hidden_size"], generator=generator)
    generators = [torch.Generator().manual_seed(seed) for seed in range(SEQUENCES)]

    def whole() -> None:
        logits = F.linear(hidden, head)
        logits[:, : tokens.start] = -torch.inf
        logits[:, tokens.stop :] = -torch.inf
        draw(logits, generators)

    return alternate({OURS: lambda: draw(F.linear(hidden, rows), generators), WHOLE: whole}, repeats)


class Engine:
    """One engine in a process of its own."""

    def __init__(self, path: Path, kind: str):
        self.executor = ProcessPoolExecutor(1, get_context("spawn"), start, (path, kind))

    def sample(self) -> None:
        """Draw a batch there and wait for it."""
        self.executor.submit(sample).result()


_ENGINE: dict[str, Any] = {}  # of this worker process


def start(path: Path, kind: str) -> None:
    """Start a process's engine."""
    os.environ.update(engine_environment(SETTINGS))
    config = load_config(path)
    tokens = image_tokens(config)
    prompt = PromptEncoder.from_pretrained(path).encode('a red sign that says "TAXI"')
    if kind == OURS:
        engine, prompt = start_engine(path, SETTINGS), EngineIds(tokens, config.vocab_size).of_prompt(prompt)
    else:
        engine = start_whole(path)
    _ENGINE.update(engine=engine, prompt=prompt, num_tokens=tokens.num_tokens)


def start_whole(path: Path) -> Any:
    """vLLM's own Qwen3 on the same folder, with logits of the whole vocabulary and a mask."""
    from vllm import LLM
    from vllm.v1.sample.logits_processor import LogitsProcessor

    from blip3o_grpo.rollout.workers.vllm_model import register

    class OnlyImageTokens(LogitsProcessor):
        def __init__(self, vllm_config: Any, device: torch.device, is_pin_memory: bool):
            self.tokens = image_tokens(vllm_config.model_config.hf_config)

        def is_argmax_invariant(self) -> bool:
            return False

        def update_state(self, batch_update: Any) -> None:
            pass

        def apply(self, logits: torch.Tensor) -> torch.Tensor:
            logits[:, : self.tokens.start] = -torch.inf
            logits[:, self.tokens.stop :] = -torch.inf
            return logits

    register()
    options = engine_options(path, SETTINGS)
    return LLM(**options, hf_overrides={"architectures": ["Qwen3ForCausalLM"]}, logits_processors=[OnlyImageTokens])


def sample() -> None:
    """Draw one batch with this process's engine."""
    from vllm import SamplingParams

    params = SamplingParams(
        n=SEQUENCES,
        seed=0,
        max_tokens=_ENGINE["num_tokens"],
        ignore_eos=True,
        detokenize=False,
        logprobs=0,
        flat_logprobs=True,
    )
    _ENGINE["engine"].reset_prefix_cache()
    _ENGINE["engine"].generate([{"prompt_token_ids": _ENGINE["prompt"]}], params, use_tqdm=False)


def bench_engine(path: Path, repeats: int) -> dict[str, list[float]]:
    """Part 2 of the module's text."""
    engines = {kind: Engine(path, kind) for kind in (OURS, WHOLE)}
    try:
        return alternate({kind: engine.sample for kind, engine in engines.items()}, repeats)
    finally:
        for engine in engines.values():
            engine.executor.shutdown()


def show(title: str, seconds: dict[str, list[float]], console: Console) -> dict[str, Any]:
    """Print one part as a table and return it for JSON."""
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    table = Table("logits of", "seconds", "ours: ×", title=title)
    for name, value in medians.items():
        table.add_row(name, f"{value:.3f}", "1" if name == OURS else f"{value / medians[OURS]:.2f}")
    console.print(table)
    return {"seconds": medians, "all_seconds": seconds, "ratio": medians[WHOLE] / medians[OURS]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the results there")
    parser.add_argument("--policy", default="tiny", help="`tiny` or a folder in the released layout")
    parser.add_argument("--scale", type=float, help="instead of --policy: a random one of this scale")
    parser.add_argument("--part", choices=("head", "engine", "all"), default="all")
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    console = Console()
    threads = int(os.environ.get("OMP_NUM_THREADS", len(os.sched_getaffinity(0))))
    torch.set_num_threads(threads)
    results: dict[str, Any] = {"threads": threads, "sequences": SEQUENCES, "policy": args.scale or args.policy}
    if args.part != "engine":
        results["head"] = show("head at the released sizes, one step", bench_head(args.repeats), console)
    if args.part != "head":
        with tempfile.TemporaryDirectory(prefix="blip3o-bench-") as scratch:
            path = make(Path(scratch), args.scale) if args.scale else resolve_policy_path(args.policy)
            title = f"{SEQUENCES} completions end to end, policy {results['policy']}"
            results["engine"] = show(title, bench_engine(path, args.repeats), console)
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
