"""Does a slow judge hold the stream up? The same rollouts with a judge that answers at once and one that takes seconds.

    .venv/bin/python scripts/bench_judge.py [section.key=value ...] [--delay 2] [--pairs 5] [--json PATH]

Real samplers, decoders and reward workers on the tiny policy; batches take turns with the judge's delay on and off. The
judge is an HTTP server of this process without a model, which answers each question after the delay, any number at a
time, as a server with room does. `judge` asks about every image, `preference` about every ordered pair of siblings.
What a delay costs at least is one answer, that of the last group.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import uvicorn
from fastapi import FastAPI
from rich.console import Console
from rich.table import Table

from blip3o_grpo.cluster import ray_cluster
from blip3o_grpo.configs import DEFAULT_RECIPE, RunConfig, load_run_config
from blip3o_grpo.policies import BLIP3oNext
from blip3o_grpo.rollout import RolloutPipeline
from blip3o_grpo.validate import CheckedRun, check_run

MODEL = "slow-judge"
ARMS = (("judge", 1), ("judge", 4), ("judge", 8), ("preference", 4))
"""Reward and its replicas."""
CONCURRENCY = {"judge": 8, "preference": 56}
"""Questions that one replica has open: those of a group of 8."""


@dataclass
class Delay:
    """How long the judge takes now."""

    seconds: float = 0.0


@dataclass(frozen=True)
class Arm:
    """Seconds from the first prompt to the last score of a batch, without the delay and with it."""

    reward: str
    replicas: int
    questions: int
    """Of a batch."""
    fast: list[float]
    slow: list[float]

    @property
    def held_up(self) -> float:
        """Median over pairs of neighbouring batches of what the delay added (seconds)."""
        return statistics.median(slow - fast for fast, slow in zip(self.fast, self.slow, strict=True))


@contextmanager
def judging(delay: Delay) -> Iterator[str]:
    """The judge's server; gives its URL."""
    app = FastAPI()

    @app.get("/v1/models")
    def models() -> dict:
        return {"object": "list", "data": [{"id": MODEL, "object": "model"}]}

    @app.post("/v1/chat/completions")
    async def complete(body: dict) -> dict:
        await asyncio.sleep(delay.seconds)
        two = len(body["messages"][0]["content"]) > 2
        message = {"role": "assistant", "content": "1" if two else "yes"}
        return {"object": "chat.completion", "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}

    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="critical", lifespan="off"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        thread.join(0.01)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/v1"
    finally:
        server.should_exit = True
        thread.join()


def configure(reward: str, replicas: int, url: str, folder: str, overrides: list[str]) -> RunConfig:
    """The default recipe with the judge as its only reward, one group a decoder's batch."""
    judge = {"url": url, "model": MODEL, "version": "1", "concurrency": CONCURRENCY[reward]}
    options = {"judge": judge} | ({"question": 'Is this "{prompt}"?'} if reward == "judge" else {})
    section = [{"name": reward, "replicas": replicas, "options": options}]
    settings = [f"run_dir={folder}", "rollout.prompts_per_step=8", "rollout.images_per_decode=8"]
    return load_run_config(DEFAULT_RECIPE, [*settings, f"rewards={json.dumps(section)}", *overrides])


def measure(run: CheckedRun, delay: Delay, seconds: float, pairs: int) -> tuple[list[float], list[float]]:
    """Wall seconds of batches without and with the delay, in turns; the first batch is not counted."""
    config, times = run.config, ([], [])
    prompts = run.train_prompts[: config.rollout.prompts_per_step]
    with closing(RolloutPipeline.launch(config, run.policy_path)) as pipeline:
        model = BLIP3oNext.from_pretrained(run.policy_path, parts=("ar",))
        pipeline.sync_weights(model.ar.state_dict(), version=0)
        delay.seconds = 0.0
        pipeline.collect(prompts, step=0)
        for step in range(1, 2 * pairs + 1):
            delay.seconds = 0.0 if step % 2 else seconds
            started = time.perf_counter()
            pipeline.collect(prompts, step=step)
            times[1 - step % 2].append(time.perf_counter() - started)
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--delay", type=float, default=2.0, help="seconds an answer takes")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    arms, delay = [], Delay()
    with judging(delay) as url, tempfile.TemporaryDirectory() as folder:
        for reward, replicas in ARMS:
            run = check_run(configure(reward, replicas, url, folder, options.overrides))
            with ray_cluster(run.config):
                fast, slow = measure(run, delay, options.delay, options.pairs)
            size = run.config.rollout.group_size
            asked = run.config.rollout.images_per_step * (size - 1 if reward == "preference" else 1)
            arms.append(Arm(reward, replicas, asked, fast, slow))
    table = Table("reward", "replicas", "questions", "at once, s", f"{options.delay:g} s each, s", "held up, s")
    for arm in arms:
        medians = (f"{statistics.median(times):.1f}" for times in (arm.fast, arm.slow))
        spread = sorted(slow - fast for fast, slow in zip(arm.fast, arm.slow, strict=True))
        held_up = f"{arm.held_up:+.1f} ({spread[0]:+.1f} to {spread[-1]:+.1f})"
        table.add_row(arm.reward, str(arm.replicas), str(arm.questions), *medians, held_up)
    table.caption = (
        f"Medians of {options.pairs} batches each, in turns; in brackets the smallest and largest difference."
    )
    Console().print(table)
    if options.json:
        options.json.write_text(json.dumps([asdict(arm) for arm in arms], indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
