"""Lives of a run in processes of their own, for tests that end them: `live` trains on the in-process stand-in pipeline."""

from __future__ import annotations

import importlib.util
import multiprocessing
import os
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def live(config_file: str) -> None:
    """Train or resume the run, as a Ray Train worker would."""
    import torch

    from configs import load_run_config
    from grpo.checkpoints import RunFolder
    from grpo.worker import run_training
    from rollout import load_prompts

    torch.set_num_threads(1)
    spec = importlib.util.spec_from_file_location("toy", Path(__file__).with_name("conftest.py"))
    toy = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(toy)
    config = load_run_config(config_file)
    RunFolder(config.run_dir).prepare(config)
    prompts = load_prompts(config.prompts.train)
    run_training(config, prompts, prompts, toy.FakePipeline(config.policy.path, config))


def start_life(config_file: Path) -> multiprocessing.Process:
    """A life of its own process, forked from a server that has imported the slow libraries once."""
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(paths))
    if str(ROOT) not in sys.path:
        sys.path.insert(0, str(ROOT))
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["grpo.worker", "tests.grpo.lives"])
    from tests.grpo.lives import live as importable  # pytest may know this module under another name

    process = context.Process(target=importable, args=(str(config_file),), daemon=True)
    process.start()
    return process
