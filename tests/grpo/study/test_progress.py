"""What the terminal of a study says of its running trials, read from the folders of a study that is half done."""

import io
import json
import shutil
from types import SimpleNamespace

import pytest
from rich.console import Console

from blip3o_grpo.configs.study import load_study_config
from blip3o_grpo.evaluation.statistics import estimate
from blip3o_grpo.study.design import plan_study
from blip3o_grpo.study.progress import StudyProgress
from tests.grpo.test_progress import on_terminal, visible


@pytest.fixture
def half_done(study_files):
    """Four trials of ten steps: the first is finished and took 100 s, the second is at its sixth step."""
    trials = plan_study(load_study_config(study_files.study(), ["trainer.max_steps=10"])).trials
    for trial in trials[:2]:
        trial.folder.path.mkdir(parents=True)
    summary = {"steps": 10, "seconds": 100.0, "peak_memory_gb": 1.0}
    trials[0].folder.summary.write_text(json.dumps(summary))
    found = estimate([0.2, 0.3, 0.4, 0.5])
    line = {"reward/mean": found.mean, **found.as_metrics("reward/mean")}
    lines = [json.dumps({"step": step, **line}) + "\n" for step in range(1, 7)]
    return SimpleNamespace(trials=trials, write=lambda n: trials[1].folder.metrics.write_text("".join(lines[:n])))


def test_lines_say_arm_seed_step_reward_and_time_left(half_done):
    file = io.StringIO()
    with StudyProgress(Console(file=file, width=40), half_done.trials, concurrency=1) as progress:
        progress.start("text/seed-1")
        progress.look()  # nothing is logged yet
        for done in (1, 1, 6):
            half_done.write(done)
            progress.look()
        shutil.copy(half_done.trials[0].folder.summary, half_done.trials[1].folder.summary)
        progress.end("text/seed-1")
        progress.start("both/seed-0")
        progress.end("both/seed-0", failed=True)
    assert file.getvalue().splitlines() == [
        "trial 2 of 4: text/seed-1",
        "text/seed-1: step 1/10  reward 0.350 (0.145 to 0.555, n=4)",
        "text/seed-1: step 6/10  reward 0.350 (0.145 to 0.555, n=4)",
        "finished: text/seed-1 (2 of 4 trials are done, 3 min 20 s left)",
        "trial 3 of 4: both/seed-0",
        "failed: both/seed-0; the other trials go on (3 of 4 trials are done, 1 min 40 s left)",
    ]


@pytest.mark.parametrize("columns", [40, 80, 120])
def test_a_terminal_shows_a_row_for_each_running_trial(half_done, columns):
    def show(console):
        with StudyProgress(console, half_done.trials, concurrency=2) as progress:
            progress.start("text/seed-1")
            progress.start("both/seed-0")
            half_done.write(6)
            progress.look()

    text = visible(on_terminal(show, columns))
    for words in ("trials", "1/4", "6/10", "0/10", "left", "starting"):
        assert words in text
    assert "0.350" in text and "n=4" in text
    assert max(len(line) for line in text.replace("\r", "\n").splitlines()) <= columns
