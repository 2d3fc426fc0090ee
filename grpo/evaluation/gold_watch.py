"""Watches gold while a run trains (`guards.gold`), and acts: the run stops, or ends with its best checkpoint by gold.

Decisions rest on the run's saved evaluations alone, those of earlier steps that are due, so a resumed run decides as it
would have. The last step's policy is evaluated when training is over; that is judged too (`judge_last`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from blip3o_grpo.configs import RunConfig
from blip3o_grpo.evaluation.gold import GoldFall, find_fall, gold_score
from blip3o_grpo.evaluation.gold_evidence import save_fall
from blip3o_grpo.evaluation.heldout import Evaluation
from blip3o_grpo.evaluation.reopened import after_as_step
from blip3o_grpo.run.folder import RunFolder, checkpoints_in
from blip3o_grpo.run.rollback import roll_back, rolled_back
from blip3o_grpo.training.guard_rules import GuardError


class GoldWatch(TrainerCallback):
    """Judges every evaluation of a training run, after the callback that makes it. Evaluated steps get a checkpoint.

    Where gold fell, the step gets none: a run that is resumed comes to the same evaluation again.

    Args:
        config: of the run.
        folder: of the run.
        any_rank: whether something is so on any rank; all ranks ask.
        save_rollouts: leaves this step's rollouts as evidence (`Guards.save_evidence`).
        tell: prints a sentence in the terminal.
    """

    def __init__(
        self,
        config: RunConfig,
        folder: RunFolder,
        *,
        any_rank: Callable[[bool], bool],
        save_rollouts: Callable[[int, str, Mapping[str, Any]], Path],
        tell: Callable[[str], None],
    ):
        self.config, self.folder = config, folder
        self.any_rank, self.save_rollouts, self.tell = any_rank, save_rollouts, tell
        self.fall: GoldFall | None = None

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """All ranks end training together where rank 0 finds that gold fell."""
        step = state.global_step
        if step % self.config.evaluation.every_steps or step == self.config.trainer.max_steps:
            return
        if state.is_world_process_zero:
            self.fall = judge(self.folder, self.config, f"step-{step}")
        fallen = self.any_rank(self.fall is not None)
        control.should_save = not fallen
        control.should_training_stop = control.should_training_stop or fallen

    def on_log(self, args: Any, state: Any, control: Any, logs: Mapping[str, Any], **_: Any) -> None:
        """Act once the step's metrics are written.

        Raises:
            GuardError: with `guards.gold_fall: stop`.
        """
        if self.fall is None or "loss" not in logs:  # not so at the end of a run
            return
        fall, self.fall = self.fall, None
        self.save_rollouts(fall.step, str(fall), logs)
        act(self.folder, self.config, fall, f"step-{fall.step}", self.tell)


def judge(folder: RunFolder, config: RunConfig, name: str) -> GoldFall | None:
    """What the evaluation of this name says of gold, against the run's earlier ones.

    Raises:
        RunFileError: an evaluation is damaged.
    """
    now = Evaluation.load(folder.evaluations / f"{name}.json")
    return find_fall(earlier(folder, config, now.step), now, config.rewards, config.guards.gold)


def earlier(folder: RunFolder, config: RunConfig, step: int) -> list[Evaluation]:
    """Evaluations of the starting policy and of the steps before this one at which they are due."""
    every = config.evaluation.every_steps
    names = ["before", *(f"step-{due}" for due in range(every, step, every))]
    files = [folder.evaluations / f"{name}.json" for name in names]
    return [Evaluation.load(file) for file in files if file.is_file()]


def act(folder: RunFolder, config: RunConfig, fall: GoldFall, name: str, tell: Callable[[str], None]) -> None:
    """Leave evidence; then stop, or go back to the best checkpoint by gold.

    Args:
        folder: of the run.
        config: of the run.
        fall: what was found.
        name: of the evaluation that fell.
        tell: prints a sentence.

    Raises:
        GuardError: with `guards.gold_fall: stop`; names the checkpoint that is the best by gold.
    """
    known = earlier(folder, config, fall.step)
    target = folder.failures / f"guard-step-{fall.step}" / "gold"
    evidence = save_fall(target, folder, config, fall, known, name)
    there = {0, *checkpoints_in(folder.checkpoints)}
    scores = [(gold_score(found, config.guards.gold), found.step) for found in known if found.step in there]
    best = max((found for found in scores if found[0] is not None), default=(None, 0))[1]
    where = str(folder.checkpoints / f"checkpoint-{best}") if best else "the starting policy"
    about = f"step {fall.step}: {fall} (guards.gold; evidence: {evidence})"
    if config.guards.gold_fall == "stop":
        raise GuardError(f"{about}; best by gold: {where} (guards.gold_fall=rollback makes it the run's result)")
    if name == "after":
        after_as_step(folder, fall.step)
    roll_back(folder, best, fall.step, str(fall))
    tell(f"{about}; the run ends with the best by gold, {where}")


def judge_last(folder: RunFolder, config: RunConfig, tell: Callable[[str], None]) -> bool:
    """Judge what was measured after the last step: whether the run was rolled back, so that its result is another.

    Raises:
        GuardError: as `act`.
    """
    if not config.guards.gold or rolled_back(folder, config):
        return False
    fall = judge(folder, config, "after")
    if fall is not None:
        act(folder, config, fall, "after", tell)
    return fall is not None
