"""In the place of `grpo.study.trial`: a run that trains nothing, for tests about who runs when, and what survives.

Arm `bad` fails; arm `slow` works until the file `hold` in the study folder is gone.
"""

import json
import sys
import time

import numpy as np
import torch

from configs import load_run_config
from grpo.checkpoints import RunFolder
from grpo.evaluation import Evaluation, save_images
from grpo.grids import save_grid
from grpo.study.trial import die_with
from rollout import Completion, Prompt, Rollout, RolloutGroup, load_prompts


def main():
    die_with(int(sys.argv[2]))
    config = load_run_config(sys.argv[1])
    run = RunFolder(config.run_dir)
    arm, study = run.path.parent.name, run.path.parents[2]
    with (run.path / "starts").open("a") as file:
        file.write("with start\n" if (run.evaluations / "before.json").is_file() else "without start\n")
    if arm == "bad":
        sys.exit("error: [no] luck")
    save(run, config, "before", 0.2)
    while arm == "slow" and (study / "hold").exists():
        (run.path / "heartbeat").write_text(str(time.time()))
        time.sleep(0.1)
    save(run, config, "after", 0.7)
    run.metrics.write_text(json.dumps({"step": 1, "reward/ocr": 0.5}) + "\n")
    run.summary.write_text("{}")


def save(run, config, name, level):
    prompts = load_prompts(config.prompts.heldout)
    rng = np.random.default_rng(0)
    per_prompt = {p.id: {r.name: level + rng.normal(0, 0.1) for r in config.rewards} for p in prompts}
    rollout = Rollout(
        Completion(np.zeros(1, np.int32), np.zeros(1, np.float32), 0, 0), np.zeros((8, 8, 3), np.uint8), {}
    )
    groups = [RolloutGroup(Prompt("p", "p"), [], (rollout,))]
    torch.save({}, run.reward_state)
    save_images(run.evaluations / f"{name}-images", groups)
    save_grid(run.grids / f"{name}.png", groups)
    Evaluation(0, len(prompts), 1, {}, {}, per_prompt).save(run.evaluations / f"{name}.json")


if __name__ == "__main__":
    main()
