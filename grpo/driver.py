"""The driver of a run: check, place, evaluate, train, evaluate, save, summarise."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict

import torch
from rich.console import Console

from blip3o_grpo.cluster import cluster_address, fit, ray_cluster
from blip3o_grpo.configs import RunConfig
from blip3o_grpo.configs.atomic import staged_folder, write_atomically
from blip3o_grpo.configs.inert import inert_options
from blip3o_grpo.configs.regular_files import is_regular
from blip3o_grpo.evaluation.changes import paired_changes
from blip3o_grpo.evaluation.gold_watch import judge_last
from blip3o_grpo.evaluation.heldout import (
    HELDOUT_STEP,
    Evaluation,
    collect_heldout,
    evaluate,
    heldout_metrics,
    save_evaluation,
)
from blip3o_grpo.evaluation.reopened import reopen
from blip3o_grpo.planning.disk import check_room
from blip3o_grpo.policies.blip3o_next.decoding import head_weights
from blip3o_grpo.policies.kinds import KINDS
from blip3o_grpo.progress import Bar, activity, announce, print_notice, print_warning
from blip3o_grpo.result import TrainingResult
from blip3o_grpo.rewards.conformance import require_storable
from blip3o_grpo.rollout import RolloutPipeline
from blip3o_grpo.rollout.workers.quick_imports import quick_imports
from blip3o_grpo.run.environment import record_start, versions
from blip3o_grpo.run.files import read_reward_state
from blip3o_grpo.run.folder import RunFolder
from blip3o_grpo.run.hacking import heldout_warnings
from blip3o_grpo.run.locks import hold
from blip3o_grpo.run.metrics import read_metrics
from blip3o_grpo.run.peak_memory import MemoryMonitor
from blip3o_grpo.run.rollback import has_steps_left, rescore_checkpoints
from blip3o_grpo.run.stopping import StopSignals
from blip3o_grpo.run.trackers import send_later, tracked_as
from blip3o_grpo.terminal import show
from blip3o_grpo.training.checkpoint_weights import load_trained, load_trained_head
from blip3o_grpo.validate import CheckedRun, check_models

ORPHANS_GONE_S = 60.0
"""How long the Ray workers of a killed driver may take to end."""


def train(run: CheckedRun, console: Console) -> TrainingResult:
    """Run or resume a training whose inputs were checked and that is not finished.

    Raises:
        ConfigError, CheckpointError, PromptError, RewardError: before any model loads, where that can be known.
        RunFolderInUseError, StorageError, CheckpointRefusedError: likewise.
        RunStopped: SIGINT, SIGTERM or SIGHUP.
    """
    started = time.perf_counter()
    with activity(console, f"checking the policy {run.policy_path}"), quick_imports():
        check_models(run)
    config = run.config
    for sentence in inert_options(config):
        print_notice(console, sentence)
    with hold(run.folder.lock):
        with (
            hold(run.folder.trainer_lock, ORPHANS_GONE_S),
            activity(console, f"checking the run folder {run.folder.path}"),
        ):
            run.folder.prepare(config)
            reopen(run.folder, config)
            rescore_checkpoints(run.folder, config)
            if {"wandb", "trackio"} & set(config.report_to):
                tracked_as(run.folder)  # made here, as ranks must not make one each
            check_room(config, run.folder, run.policy_path)
            run.folder.verified_checkpoint(lambda text: print_notice(console, text))
            record_start(run.folder.environment, run.folder.newest_step())
        with (
            MemoryMonitor() as memory,
            started_cluster(config, console),
            StopSignals() as signals,  # after Ray, which installs handlers too
            closing(launch(run, console)) as pipeline,
        ):
            before = evaluate_before(run, pipeline, console)
            announce(console, before)
            if has_steps_left(run.folder, config):
                pipeline.hand_over()
                fit(run, pipeline, console, signals, before)
            after = evaluate_after(run, pipeline, console)
            announce(console, after, before)
            if judge_last(run.folder, config, lambda text: print_notice(console, text)):
                after = evaluate_after(run, pipeline, console)
                announce(console, after, before)
        for warning in heldout_warnings(
            config.warnings, config.rewards, before.means, paired_changes(before, after), after.step
        ):
            print_warning(console, warning)
        save_summary(run.folder, before, after, time.perf_counter() - started, memory.peak_gb)
        track(run, after, console)
    return TrainingResult.read(run.folder)


@contextmanager
def started_cluster(config: RunConfig, console: Console) -> Iterator[None]:
    """`ray_cluster`, with a word about it."""
    with ExitStack() as stack:
        with activity(console, "starting Ray" if cluster_address(config) == "local" else "joining Ray"):
            stack.enter_context(ray_cluster(config))
        yield


def launch(run: CheckedRun, console: Console) -> RolloutPipeline:
    """The run's workers, with the policy and the rewards in them."""
    if step := run.folder.newest_step():
        show(console, f"resuming after step {step}")
    with activity(console, f"loading the policy {run.policy_path} and {len(run.config.rewards)} rewards into workers"):
        return RolloutPipeline.launch(run.config, run.policy_path)


def evaluate_before(run: CheckedRun, pipeline: RolloutPipeline, console: Console) -> Evaluation:
    """Held-out result of the starting policy, which rewards may remember; a resumed run takes both from its folder."""
    file = run.folder.evaluations / "before.json"
    if is_regular(file):
        pipeline.load_reward_state(read_reward_state(run.folder.reward_state))
        return Evaluation.load(file)
    with activity(console, "giving the workers the starting policy's weights"):
        policy = KINDS[run.config.policy.type].load(run.policy_path, "reader")
        pipeline.sync_weights(policy.ar.state_dict(), version=0)
    with heldout_bar(run, console) as bar:
        groups = collect_heldout(pipeline, run.heldout_prompts, run.config, progress=bar.see)
    if pipeline.needs_reference():
        groups = pipeline.fit_rewards(groups, HELDOUT_STEP)
    state = pipeline.reward_state()
    for name, values in state.items():
        require_storable(values, f"state of reward {name!r}")
    buffer = io.BytesIO()
    torch.save(state, buffer)
    write_atomically(run.folder.reward_state, buffer.getvalue())
    return save_evaluation(groups, run.config, name="before", step=0, folder=run.folder)


def evaluate_after(run: CheckedRun, pipeline: RolloutPipeline, console: Console) -> Evaluation:
    """Held-out result of the newest checkpoint, which becomes `RUN/policy` in the released layout."""
    step = run.folder.newest_step()
    with activity(console, f"saving the policy to {run.folder.policy}"):
        policy = KINDS[run.config.policy.type].load(run.policy_path, "whole")
        checkpoint = run.folder.newest_checkpoint()  # None: the run was rolled back to its start
        if checkpoint and "tokens" in run.config.learn:
            policy.ar = load_trained(policy.ar, checkpoint, run.config)
        head = None
        if "head" in run.config.learn:
            head = load_trained_head(policy, checkpoint, run.config) if checkpoint else head_weights(policy)
        with staged_folder(run.folder.policy) as staged:
            policy.save_pretrained(staged)
        pipeline.sync_weights(policy.ar.state_dict(), version=step, head=head)
    with heldout_bar(run, console) as bar:
        return evaluate(
            pipeline,
            run.heldout_prompts,
            run.config,
            name="after",
            step=step,
            folder=run.folder,
            progress=bar.see,
        )


def heldout_bar(run: CheckedRun, console: Console) -> Bar:
    """Over the prompts of a held-out evaluation."""
    total = min(len(run.heldout_prompts), run.config.evaluation.num_prompts)
    return Bar(console, "held-out evaluation", total, lines=4, unit="held-out prompt")


def track(run: CheckedRun, after: Evaluation, console: Console) -> None:
    """Show the trained policy's evaluation in the run's trackers."""
    picture = run.folder.grids / "after.png"
    try:
        send_later(run.config.report_to, run.folder, heldout_metrics(after), picture, after.step)
    except Exception as error:  # of any tracker, such as a lost network: the run itself is finished and saved
        print_notice(console, f"the last evaluation is not in {' and '.join(run.config.report_to)}: {error}")


def save_summary(folder: RunFolder, before: Evaluation, after: Evaluation, seconds: float, peak_gb: float) -> None:
    """Write `summary.json`, whole or not at all; `change` is paired by prompt."""
    mismatches = [line["mismatch/mean_abs"] for line in read_metrics(folder.metrics) if "mismatch/mean_abs" in line]
    summary = {
        "heldout": {
            "before": before.means,
            "after": after.means,
            "estimates": {
                name: {key: asdict(found) for key, found in evaluation.estimates().items()}
                for name, evaluation in (("before", before), ("after", after))
            },
            "change": {name: asdict(change) for name, change in paired_changes(before, after).items()},
        },
        "steps": after.step,
        "seconds": round(seconds, 1),
        "peak_memory_gb": round(peak_gb, 2),
        "mismatch_max": max(mismatches, default=None),
        "versions": versions(),
    }
    write_atomically(folder.summary, json.dumps(summary, indent=2) + "\n")
