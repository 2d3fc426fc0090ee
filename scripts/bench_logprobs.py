"""What do log-probs of image tokens and their backward pass cost? The whole vocabulary against ours, in one run.

The baseline is what the released RL code does: logits over all text and image tokens, log-softmax, pick. Ours:
image rows only, in chunks that are computed again in the backward pass (`logprobs.py`). Both get the same
hidden states and the same `lm_head`, and return gradients for both. They take turns, and medians count. The peak of
each is taken in a process of its own, on top of inputs and gradients: what PyTorch allocated on a GPU, resident memory
on a CPU.

With `--layers N` a random Qwen3 body of N layers makes the hidden states, and the time is that of a training step's
forward and backward pass (with gradient checkpointing). Needs PyTorch only; transformers too with `--layers`.

    python scripts/bench_logprobs.py --json bench.json              # reduced on a CPU, the released sizes on a GPU
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

sys.path.insert(0, str(Path(__file__).parents[1]))
from blip3o_grpo.policies.blip3o_next.logprobs import token_logprobs  # noqa: E402

WAYS = ("whole vocabulary", "ours")


@dataclass(frozen=True)
class Sizes:
    """Of one measurement."""

    vocabulary: int
    image_tokens: int
    hidden: int
    rollouts: int
    """Images in one forward and backward pass."""
    length: int
    """Image tokens per image."""
    layers: int = 0


FULL = Sizes(vocabulary=217_210, image_tokens=65_536, hidden=2048, rollouts=8, length=729)
REDUCED = Sizes(vocabulary=21_721, image_tokens=6_554, hidden=256, rollouts=2, length=729)


def whole_vocabulary(hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Log-probs `[B, T]` as the released code computes them: float32 log-softmax over all tokens."""
    return F.linear(hidden, weight).float().log_softmax(-1).gather(-1, targets[..., None])[..., 0]


def image_rows(hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor, start: int) -> torch.Tensor:
    """Log-probs `[B, T]` of ours."""
    return token_logprobs(hidden, weight[start:], targets - start)[0]


def make_step(sizes: Sizes, device: str) -> Callable[[str], None]:
    """A function that runs forward and backward in one of the `WAYS`, always on the same random inputs."""
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    torch.manual_seed(0)
    start = sizes.vocabulary - sizes.image_tokens
    weight = (0.02 * torch.randn(sizes.vocabulary, sizes.hidden, device=device, dtype=dtype)).requires_grad_()
    hidden = torch.randn(sizes.rollouts, sizes.length, sizes.hidden, device=device, dtype=dtype).requires_grad_()
    targets = torch.randint(start, sizes.vocabulary, (sizes.rollouts, sizes.length), device=device)
    body = make_body(sizes, device, dtype) if sizes.layers else None

    def step(way: str) -> None:
        states = body(inputs_embeds=hidden, use_cache=False).last_hidden_state if body else hidden
        if way == WAYS[0]:
            logprobs = whole_vocabulary(states, weight, targets)
        else:
            logprobs = image_rows(states, weight, targets, start)
        logprobs.mean().backward()
        if device == "cuda":
            torch.cuda.synchronize()

    for parameter in (
        weight,
        hidden,
        *(body.parameters() if body else ()),
    ):  # they exist from here on, as in every micro-batch but the first
        parameter.grad = torch.zeros_like(parameter)
    return step


def measure_seconds(sizes: Sizes, device: str, repeats: int) -> dict[str, float]:
    """Median seconds of each way, taken in turns after one warm-up of each."""
    step = make_step(sizes, device)
    seconds: dict[str, list[float]] = {way: [] for way in WAYS}
    for repeat in range(repeats + 1):
        for way in WAYS:
            started = time.perf_counter()
            step(way)
            if repeat:
                seconds[way].append(time.perf_counter() - started)
    return {way: statistics.median(values) for way, values in seconds.items()}


def measure_peak(way: str, sizes: Sizes, device: str) -> int:
    """Bytes on top of inputs and gradients, in this process."""
    step = make_step(sizes, device)
    before = memory(device)
    step(way)
    return memory(device, peak=True) - before


def measure_peak_apart(way: str, sizes: Sizes, device: str) -> int:
    """`measure_peak` in a process of its own, which imports no more than it needs."""
    command = [sys.executable, __file__, "--device", device, "--only", way]
    command += [f"--{name.replace('_', '-')}={value}" for name, value in asdict(sizes).items()]
    return int(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


def compare(sizes: Sizes, device: str, repeats: int) -> dict[str, Any]:
    """Seconds and peaks of both ways, and their ratios."""
    peaks = {way: measure_peak_apart(way, sizes, device) for way in WAYS}
    seconds = measure_seconds(sizes, device, repeats)
    results = {way: {"seconds": seconds[way], "peak_bytes": peaks[way]} for way in WAYS}
    theirs, ours = results.values()
    return {
        "sizes": asdict(sizes),
        "results": results,
        "speedup": theirs["seconds"] / ours["seconds"],
        "peak_ratio": ours["peak_bytes"] / theirs["peak_bytes"],
    }


def make_body(sizes: Sizes, device: str, dtype: torch.dtype) -> torch.nn.Module:
    """A random Qwen3 of the released shape (1.7 B at 28 layers and 2,048 channels), with gradient checkpointing."""
    from transformers import Qwen3Config, Qwen3Model

    heads = max(1, sizes.hidden // 128)
    config = Qwen3Config(
        vocab_size=8,
        hidden_size=sizes.hidden,
        intermediate_size=3 * sizes.hidden,
        num_hidden_layers=sizes.layers,
        num_attention_heads=heads,
        num_key_value_heads=max(1, heads // 2),
        head_dim=128,
    )
    with torch.device(device):
        body = Qwen3Model(config).to(dtype).train()
    body.gradient_checkpointing_enable({"use_reentrant": False})
    return body


def memory(device: str, peak: bool = False) -> int:
    """Bytes now (after which a new peak is looked for), or at their peak."""
    if device == "cuda":
        if peak:
            return torch.cuda.max_memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()
    # not getrusage's ru_maxrss: a child inherits that of the process that started it
    field = "VmHWM" if peak else "VmRSS"
    return 1024 * int(re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())[1])


def main() -> None:
    """Measure both ways in processes of their own and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="write the numbers here")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", choices=WAYS, help=argparse.SUPPRESS)
    default = FULL if torch.cuda.is_available() else REDUCED
    for name, value in asdict(default).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=value)
    options = parser.parse_args()
    sizes = Sizes(**{name: getattr(options, name) for name in asdict(default)})
    if options.only:
        sys.stdout.write(str(measure_peak(options.only, sizes, options.device)))
        return
    report = {
        "device": torch.cuda.get_device_name() if options.device == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        **compare(sizes, options.device, options.repeats),
    }
    lines = [f"{report['device']}, {sizes}"]
    lines += [f"{way:18} {r['seconds']:8.3f} s {r['peak_bytes'] / 1e9:8.2f} GB" for way, r in report["results"].items()]
    lines += [f"ours: {report['speedup']:.2f} times as fast, {100 * report['peak_ratio']:.0f} % of the peak"]
    sys.stdout.write("\n".join(lines) + "\n")
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
