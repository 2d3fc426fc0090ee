"""A few GRPO steps of the tiny policy in one process: does everything of ours learn on this device, without a cluster?

    python scripts/gpu_grpo.py --json grpo.json                    # on a GPU
    python scripts/gpu_grpo.py --device cpu --steps 2              # on a CPU: does everything run?

Sampling, decoding, log-probs and their backward pass are those of a run; the loop around them is the plainest one, with
the policy gradient of group-normalised advantages. The reward is how red a picture is, which needs no package. The
reward's mean of the last third of the steps must be above that of the first third. Needs torch, transformers,
diffusers and accelerate; neither Ray, vLLM, TRL nor pydantic.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
from blip3o_grpo.configs.atomic import write_atomically  # noqa: E402
from blip3o_grpo.policies.blip3o_next.decoding import decode_completions  # noqa: E402
from blip3o_grpo.policies.blip3o_next.logprobs import image_logprobs  # noqa: E402
from blip3o_grpo.policies.blip3o_next.policy import BLIP3oNext  # noqa: E402
from blip3o_grpo.policies.blip3o_next.sampling import sample_image_tokens  # noqa: E402

PROMPTS = ROOT / "configs/prompts/tiny_ocr_train.jsonl"
STAGES = ("sample", "decode", "learn")
EPSILON = 1e-4
JUDGED_FROM = 9
"""Steps, of which a third is enough to tell a rise from noise."""


@dataclass(frozen=True)
class Settings:
    """What is run."""

    device: str = "cuda"
    steps: int = 30
    prompts: int = 8
    group_size: int = 8
    diffusion_steps: int = 2
    learning_rate: float = 3e-4


def redness(images: torch.Tensor) -> torch.Tensor:
    """`[B]` in [-1, 1] of `[B, H, W, 3]` uint8: red above the mean of green and blue."""
    red, green, blue = (images.float() / 255).mean((1, 2)).T
    return red - (green + blue) / 2


def advantages_of(rewards: torch.Tensor, group_size: int) -> torch.Tensor:
    """`[B]`, normalised within each group."""
    groups = rewards.view(-1, group_size)
    return ((groups - groups.mean(1, keepdim=True)) / (groups.std(1, keepdim=True) + EPSILON)).flatten()


@contextmanager
def timed(seconds: dict[str, float], stage: str, device: str) -> Iterator[None]:
    """Note the block's seconds, the device's work included."""
    started = time.perf_counter()
    yield
    if device == "cuda":
        torch.cuda.synchronize()
    seconds[stage] = time.perf_counter() - started


def learn(
    policy: BLIP3oNext,
    optimiser: torch.optim.Optimizer,
    rows: Sequence[list[int]],
    tokens: torch.Tensor,
    advantages: torch.Tensor,
) -> dict[str, float]:
    """One optimiser step on sampled tokens `[B, T]`; loss, and how far log-probs moved by it (nats per token)."""
    device = policy.ar.device
    prompts, prompt_mask = (part.to(device) for part in policy.prompts.pad(rows))
    ids, mask = torch.cat([prompts, tokens], 1), torch.cat([prompt_mask, torch.ones_like(tokens)], 1)
    logprobs, _ = image_logprobs(policy.ar, ids, mask, policy.image_tokens)
    ratio = (logprobs - logprobs.detach()).exp()
    loss = -(ratio * advantages.to(device)[:, None]).mean()
    optimiser.zero_grad()
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(policy.ar.parameters(), 1.0)
    optimiser.step()
    with torch.no_grad():
        moved = (image_logprobs(policy.ar, ids, mask, policy.image_tokens)[0] - logprobs).abs().mean()
    return {"loss": loss.item(), "gradient_norm": norm.item(), "moved": moved.item()}


def run(settings: Settings, report: Callable[[dict[str, float]], None]) -> list[dict[str, float]]:
    """All steps' numbers; each is reported as soon as it is known."""
    policy = BLIP3oNext.from_pretrained(ROOT / "policies/tiny", device=settings.device)
    optimiser = torch.optim.AdamW(policy.ar.parameters(), lr=settings.learning_rate)
    captions = [json.loads(line)["prompt"] for line in PROMPTS.read_text(encoding="utf-8").splitlines()]
    lines = []
    for step in range(settings.steps):
        first = step * settings.prompts
        chosen = [captions[(first + index) % len(captions)] for index in range(settings.prompts)]
        rows = [policy.prompts.encode(text) for text in chosen for _ in range(settings.group_size)]
        seeds = [first + index // settings.group_size for index in range(len(rows))]
        seconds: dict[str, float] = {}
        with timed(seconds, "sample", settings.device):
            tokens = sample_image_tokens(policy, rows, seed=step)
        with timed(seconds, "decode", settings.device):
            images = decode_completions(policy, rows, tokens, seeds, num_steps=settings.diffusion_steps)
        rewards = redness(images)
        with timed(seconds, "learn", settings.device):
            learnt = learn(policy, optimiser, rows, tokens, advantages_of(rewards, settings.group_size))
        line = {"step": step + 1, "reward": rewards.mean().item(), **learnt, **seconds}
        lines.append(line)
        report(line)
    return lines


def judge(lines: Sequence[dict[str, float]]) -> dict[str, Any]:
    """Whether every number is finite, weights moved, and, of enough steps, the reward rose."""
    numbers = torch.tensor([[line[name] for name in ("reward", "loss", "gradient_norm")] for line in lines])
    third, rewards = len(lines) // 3, [line["reward"] for line in lines]
    first = last = None
    if len(lines) >= JUDGED_FROM:
        first, last = statistics.mean(rewards[:third]), statistics.mean(rewards[-third:])
    return {
        "finite": bool(torch.isfinite(numbers).all()),
        "moved": all(line["moved"] > 0 for line in lines),
        "reward_first_third": first,
        "reward_last_third": last,
        "rose": None if first is None else last > first,
    }


def main() -> None:
    """Print a line per step and the verdict; exit code 1 where it is bad."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, value in asdict(Settings()).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(value), default=value)
    parser.add_argument("--json", type=Path, help="write the numbers here")
    options = vars(parser.parse_args())
    file = options.pop("json")
    if options["device"] == "cuda" and not torch.cuda.is_available():
        parser.error("no CUDA device here; --device cpu --steps 2 checks the script")
    settings = Settings(**options)

    def show(line: dict[str, float]) -> None:
        sys.stdout.write(" ".join(f"{name} {value:.4g}" for name, value in line.items()) + "\n")
        sys.stdout.flush()

    lines = run(settings, show)
    verdict = judge(lines)
    device = torch.cuda.get_device_name() if settings.device == "cuda" else "cpu"
    report = {
        "device": device,
        "torch": torch.__version__,
        "settings": asdict(settings),
        "steps": lines,
        "median_seconds": {stage: statistics.median(line[stage] for line in lines[1:] or lines) for stage in STAGES},
        "verdict": verdict,
    }
    if file:
        write_atomically(file, json.dumps(report, indent=2) + "\n")
    sys.stdout.write(f"{device}: {verdict}\n")
    if not verdict["finite"] or not verdict["moved"] or verdict["rose"] is False:
        sys.exit(1)


if __name__ == "__main__":
    main()
