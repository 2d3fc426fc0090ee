"""In the place of `study.trial`: a run that trains nothing, for tests about who runs when, and what survives.

Arm `bad` fails; arm `slow` works until the file `hold` in the study folder is gone. Imports no model library.
"""

import json
import sys
import time
from pathlib import Path

from PIL import Image

from blip3o_grpo.configs import load_run_config
from blip3o_grpo.run.folder import RunFolder
from blip3o_grpo.study.trial import die_with


def main():
    die_with(int(sys.argv[2]))
    config = load_run_config(sys.argv[1])
    run = RunFolder(config.run_dir)
    arm, study = run.path.parent.name, run.path.parents[2]
    with (run.path / "starts").open("a") as file:
        file.write("with start\n" if (run.evaluations / "before.json").is_file() else "without start\n")
    if arm == "bad":
        sys.exit("error: [no] luck")
    run.reward_state.touch()
    save(run, config, "before", 0.2)
    while arm == "slow" and (study / "hold").exists():
        (run.path / "heartbeat").write_text(str(time.time()))
        time.sleep(0.1)
    save(run, config, "after", 0.7)
    run.metrics.write_text(json.dumps({"step": 1, "reward/ocr": 0.5}) + "\n")
    run.summary.write_text("{}")


def save(run, config, name, level):
    """An evaluation in which later prompts score a little higher."""
    lines = [json.loads(line) for line in Path(config.prompts.heldout).read_text().splitlines()]
    per_prompt = {
        line["id"]: {reward.name: level + 0.01 * (index % 7) for reward in config.rewards}
        for index, line in enumerate(lines)
    }
    pictures = run.evaluations / f"{name}-images"
    for folder in (pictures, run.grids):
        folder.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8)).save(pictures / "0.png")
    Image.new("RGB", (8, 8)).save(run.grids / f"{name}.png")
    shown = {"prompt_id": lines[0]["id"], "prompt": lines[0]["prompt"], "images": ["0.png"], "rewards": {}}
    (pictures / "index.jsonl").write_text(json.dumps(shown) + "\n")
    evaluation = {
        "step": 0, "num_prompts": len(lines), "images_per_prompt": 1, "means": {}, "intervals": {},
        "per_prompt": per_prompt,
    }  # fmt: skip
    (run.evaluations / f"{name}.json").write_text(json.dumps(evaluation))


if __name__ == "__main__":
    main()
