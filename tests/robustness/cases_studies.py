"""Malformed studies."""

from __future__ import annotations

from tests.robustness.case import Case, World

ARM = {"name": "a", "weights": {"ocr": 1}}


def _arm(**changes):
    return lambda world: world.study(arms=[{**ARM, **changes}])


def _another_study(world: World) -> str:
    folder = world.folder / "study"
    folder.mkdir()
    (folder / "study.yaml").write_text("not: a study\n")
    return world.study()


def _a_run(world: World) -> str:
    world.write("study/config.yaml", "run_dir: x\n")
    return world.study()


def _empty_suite(world: World) -> str:
    path = world.write("empty.jsonl", "")
    return world.study(suites=[{"name": "s", "prompts": str(path)}])


CASES = [
    Case("study", name, act, says)
    for name, act, says in [
        ("unknown reward", _arm(weights={"ocrr": 1}), ("arm 'a'", "did you mean 'ocr'?")),
        ("unknown override", _arm(overrides={"trainer.lr": 1}), ("arm 'a'", "unknown key 'trainer.lr'")),
        ("an override of what is compared", _arm(overrides={"rollout": {"temperature": 2}}), ("arm 'a'", "override")),
        ("a wrong override", _arm(overrides={"trainer.max_steps": 0}), ("arm 'a'", "'trainer.max_steps' is 0")),
        ("a date as an override", _arm(overrides={"trainer.beta": "2024-01-01"}), ("arm 'a'", "trainer.beta")),
        ("weights all zero", _arm(weights={"ocr": 0}), ("arm 'a'", "all weights are 0")),
        ("weights NaN", _arm(weights={"ocr": float("nan")}), ("arms.0.weights.ocr", "finite")),
        ("weights infinite", _arm(weights={"ocr": float("inf")}), ("arms.0.weights.ocr", "finite")),
        ("no weights", _arm(weights={}), ("arms.0.weights",)),
        ("weights in words", _arm(weights={"ocr": "much"}), ("arms.0.weights.ocr",)),
        ("a name that leads out", _arm(name="../a"), ("arms.0.name",)),
        ("an empty name", _arm(name=""), ("arms.0.name",)),
        ("the name of the start", _arm(name="start"), ("'start' means the untrained policy",)),
        ("a secret", _arm(overrides={"rewards.0.options": {"token": "abc"}}), ("arm 'a'",)),
        ("arms twice", lambda w: w.study(arms=[ARM, ARM]), ("arms: 'a' is used twice",)),
        ("arms but for case", lambda w: w.study(arms=[ARM, {**ARM, "name": "A"}]), ("upper and lower case",)),
        ("no arms", lambda w: w.study(arms=[]), ("arms",)),
        ("no base", lambda w: w.study(base="nothing.yaml"), ("nothing.yaml: no such file",)),
        ("a folder as base", lambda w: w.study(base="."), ("is a folder",)),
        ("no study folder", lambda w: w.study(study_dir=None), ("'study_dir' is required",)),
        ("seeds twice", lambda w: w.study(seeds=[1, 1]), ("seeds: 1 is used twice",)),
        ("seeds below 0", lambda w: w.study(seeds=[-1]), ("seeds",)),
        ("no seeds", lambda w: w.study(seeds=[]), ("seeds",)),
        ("unknown baseline", lambda w: w.study(baseline="b"), ("baseline: unknown arm 'b'",)),
        ("unknown correction", lambda w: w.study(correction="none"), ("allowed: 'holm'",)),
        ("unknown key", lambda w: w.study(arm=[]), ("did you mean 'arms'?",)),
        ("a suite without prompts", _empty_suite, ("suite 's'", "no prompts")),
        ("a suite that is no file", lambda w: w.study(suites=[{"name": "s", "prompts": "n.jsonl"}]), ("suite 's'",)),
        ("suites twice", lambda w: w.study(suites=[{"name": "s", "prompts": "x.jsonl"}] * 2), ("suites: 's'",)),
        ("a reward twice", lambda w: w.study(rewards=[{"name": "ocr"}]), ("rewards: 'ocr' is used twice",)),
        ("no concurrency", lambda w: w.study(trials={"concurrency": 0}), ("trials.concurrency",)),
        ("folder of another study", _another_study, ("is not the configuration of a study",)),
        ("folder of a run", _a_run, ("holds something that is no study",)),
    ]
] + [Case("study", "a broken file", lambda w: w.cli("ablate", w.write("s.yaml", "arms: [")), ("s.yaml", "YAML"))]
