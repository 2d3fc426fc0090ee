"""What is accepted and right: prompt files, overrides, checkpoints and run folders that no check may ever refuse.

Plain data and edits of files, without the project's own code, so that any version of it can be held against them.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable
from pathlib import Path

SIGNS: list[tuple[str, list[str]]] = [
    ('a red sign that says "TAXI"', ["TAXI"]),
    ('A neon sign reading "Open 24 Hours" above a door.', ["Open 24 Hours"]),
    ('a poster with "SALE" and "50% OFF"', ["SALE", "50% OFF"]),
    ('"STOP" on an octagon', ["STOP"]),
    ('a mug that says "I ♥ NY"', ["I ♥ NY"]),
    ('a cake, "Happy Birthday, Ada!", with candles', ["Happy Birthday, Ada!"]),
    ('a plate: "B-AD 1234"', ["B-AD 1234"]),
    ('a clock showing "12:45"', ["12:45"]),
    ('a book titled "The Fox & the Hound"', ["The Fox & the Hound"]),
    ('a café called "CAFÉ"', ["CAFÉ"]),
    ('a receipt, total "$9.99"', ["$9.99"]),
    ('a mail to "me@home.org" on a screen', ["me@home.org"]),
    ('a sign "NO PARKING" beside a dog\'s bowl', ["NO PARKING"]),
    ('the dog’s sign says "DOGS WELCOME"', ["DOGS WELCOME"]),
    ("a shop window, “FRESH BREAD” in gold", ["FRESH BREAD"]),
    ('a long  prompt\twith   odd   spaces, "ODD"', ["ODD"]),
    ('a house, très petit, and a sign "ÉCOLE"', ["ÉCOLE"]),
    ('a shirt with "C++"', ["C++"]),
    ('a label "mc²"', ["mc²"]),
    ('an emoji 🙂 beside "HELLO"', ["HELLO"]),
]
"""Prompts and the texts they ask for."""


def prompt_files() -> list[tuple[str, str, bytes, list[list[str]]]]:
    """(name, file name, content, targets of every line)."""
    files = []
    for index, (text, targets) in enumerate(SIGNS):
        line = " ".join(text.split())
        ends = ("\n", "\r\n", "\n\n")[index % 3]
        mark = b"\xef\xbb\xbf" if index % 4 == 0 else b""
        files.append((f"text {index}", "a.txt", mark + f"{line}{ends}a {line}{ends}".encode(), [targets, targets]))
        record = {"prompt": text, "note": {"deep": [1, 2.5, None, True]}, "source": "ünïcode"}
        content = json.dumps(record, ensure_ascii=index % 2 == 0) + ends + json.dumps({**record, "id": index}) + "\n"
        files.append((f"record {index}", "a.jsonl", content.encode(), [targets, targets]))
        named = {"id": f"n-{index}", "prompt": f"a sign in style {index}", "target_text": targets[0]}
        files.append((f"target {index}", "a.jsonl", (json.dumps(named) + "\n").encode(), [[targets[0]]]))
    return files


OVERRIDES = [
    "seed=0", "seed=2147483647", "run_dir=some/where", "run_dir='with space'", "run_dir=ünïcode", "policy.path=tiny",
    "policy.dtype=bfloat16", "rollout.prompts_per_step=1", "rollout.group_size=2", "rollout.temperature=0.7",
    "rollout.temperature=1e-1", "rollout.noise=independent", "rollout.num_diffusion_steps=1",
    "rollout.guidance_scale=1", "rollout.guidance_scale=7.5", "rollout.prompts_per_chunk=1",
    "rollout.images_per_decode=1", "rollout.decoder.compile=true", "rollout.decoder.vae_slicing=true",
    "rollout.enforce_eager=false", "rollout.record_every_steps=0", "rollout.record_images=all", "rewards.0.weight=2",
    "rewards.0.weight=-0.5", "rewards.0.on_error=skip", "rewards.0.replicas=3", "rewards.0.batch_size=8",
    "rewards.0.options.min_confidence=0.5", "rewards.0.options.variant=ned", "cluster.trainers=1",
    "cluster.samplers=2", "cluster.decoders=2", "cluster.rewards=2", "cluster.threads=1", "cluster.address=local",
    "cluster.trainer_restarts=0", "cluster.weight_sync=object_store", "trainer.max_steps=1",
    "trainer.learning_rate=3e-4", "trainer.lr_scheduler_type=cosine", "trainer.warmup_steps=5", "trainer.beta=0",
    "trainer.epsilon=0.1", "trainer.epsilon_high=0.28", "trainer.loss_type=dr_grpo", "trainer.scale_rewards=none",
    "trainer.max_grad_norm=0.2", "trainer.weight_decay=0.1", "trainer.micro_batch_size=null",
    "trainer.gradient_checkpointing=true", "trainer.lora.rank=8", "trainer.lora.targets=[q_proj]",
    "trainer.ema.decay=0.9", "trainer.ema.use=last", "trainer.mismatch_bound=0.1", "evaluation.num_prompts=1",
    "evaluation.every_steps=10", "evaluation.num_diffusion_steps=30", "checkpoint.every_steps=1",
    "checkpoint.keep_best=0", "faults.retries=0", "faults.timeout_s.score=null", "warnings.kl_budget=null",
    "guards.non_finite=stop", "report_to=[]", "report_to=[tensorboard]",
]  # fmt: skip
"""Of the shipped tiny recipe."""


def _json(name: str, **changes: object) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        values = json.loads((folder / name).read_text())
        _write(folder / name, json.dumps(values | changes))

    return edit


def _file(name: str, content: bytes | str) -> Callable[[Path], None]:
    return lambda folder: _write(folder / name, content)


def _gone(name: str) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        path = folder / name
        if path.is_dir():
            for inner in sorted(path.rglob("*"), reverse=True):
                inner.rmdir() if inner.is_dir() else inner.unlink()
            path.rmdir()
        else:
            path.unlink()

    return edit


def _write(path: Path, content: bytes | str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)


def _tensors(kind: str) -> Callable[[Path], None]:
    """The same weights in another dtype, or in shards with an index."""

    def edit(folder: Path) -> None:
        import torch
        from safetensors.torch import load_file, save_file

        file = folder / "model.safetensors"
        tensors = load_file(file)
        file.unlink()
        if kind != "shards":
            save_file({name: value.to(getattr(torch, kind)) for name, value in tensors.items()}, file)
            return
        names = sorted(tensors)
        parts = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
        for part, members in parts.items():
            save_file({name: tensors[name] for name in members}, folder / part, metadata={"format": "pt"})
        weight_map = {name: part for part, members in parts.items() for name in members}
        _write(folder / "model.safetensors.index.json", json.dumps({"metadata": {}, "weight_map": weight_map}))

    return edit


CHECKPOINTS: list[tuple[str, Callable[[Path], None]]] = [
    ("as it is", lambda folder: None),
    ("in bfloat16", _tensors("bfloat16")),
    ("in float16", _tensors("float16")),
    ("in two shards", _tensors("shards")),
    *((f"with {name}", _file(name, content)) for name, content in (
        ("README.md", "a policy"), (".gitattributes", "*.safetensors lfs"), ("LICENSE", "text"), ("a picture.png", b""),
        ("optimizer.pt", b"x"), ("training_args.bin", b"x"), ("trainer_state.json", "{}"), ("runs/log.txt", "x"),
        ("generation_config.json", '{"temperature": 0.7}'), ("special_tokens_map.json", "{}"),
        ("added_tokens.json", "{}"), (".DS_Store", b"\0"), ("vocab.json", "{}"), ("merges.txt", ""),
    )),
    *((f"config with {key}", _json("config.json", **{key: value})) for key, value in (
        ("transformers_version", "4.51.3"), ("torch_dtype", "bfloat16"), ("use_cache", False), ("_name_or_path", "x"),
        ("architectures", ["SomethingElse"]), ("unknown_key", {"a": [1]}), ("attention_dropout", 0.0),
        ("bos_token_id", 1), ("dtype", "float32"), ("auto_map", {}), ("rope_theta", 10000.0),
        ("initializer_range", 0.01),
    )),
]  # fmt: skip
"""Edits of a valid checkpoint that leave it valid."""

RUNS: list[tuple[str, Callable[[Path], None]]] = [
    ("as it is", lambda folder: None),
    *((f"without {name}", _gone(name)) for name in (
        "metrics.jsonl", "rollouts", "evaluations", "evaluations/before.json", "evaluations/before-images",
        "rollouts/step-000000/000-best.png", "rollouts/step-000000/000-worst.png",
    )),
    *((f"with {name}", _file(name, content)) for name, content in (
        ("notes.txt", "mine"), ("report.html", "old"), ("tensorboard/events", b"x"), (".lock", ""), ("train.log", "x"),
        ("evaluations/notes.txt", "x"), ("grids/before.png", b""), ("checkpoints/.incomplete/x", b"x"),
        ("checkpoints/.DS_Store", b"\0"), ("evaluations/._before.json", b"\0\xff"), ("evaluations/.DS_Store", b"\0"),
        ("evaluations/before copy.json", "{"), ("rollouts/step-000000.bak/rollouts.jsonl", "{"),
        ("failures/step-1.txt", "x"), ("rollouts/notes.txt", "x"),
        ("summary.json", json.dumps({"steps": 1, "seconds": 2.5, "peak_memory_gb": 1.0})),
        ("summary.json", json.dumps({"steps": 1, "seconds": 2, "peak_memory_gb": 1, "versions": {"torch": "2"}})),
    )),
    *((f"metrics {index}", _file("metrics.jsonl", content)) for index, content in enumerate((
        "", '{"step": 1}\n', '{"step": 1, "reward/mean": null}\n', '{"step": 1, "reward/mean": 0}\n{"step": 2, "rew',
        "".join(f'{{"step": {n}, "reward/mean": {n / 50}, "kl/reference": 0.01}}\n' for n in range(1, 50)),
        '{"step": 5, "reward/mean": 0.5}\n{"step": 6, "reward/mean": 0.25, "new/metric": -1e-9}\n',
        '{"step": 1, "time/step": 3.5, "time/sample": 1, "image/edges": 0.2}\n',
        "".join(f'{{"step": {n}, "reward/ocr": {random.Random(n).random()}}}\n' for n in range(1, 9)),
    ))),
    *((f"configuration with {old!r} replaced", lambda folder, old=old, new=new: _write(
        folder / "config.yaml", (folder / "config.yaml").read_text().replace(old, new)
    )) for old, new in (
        ("seed: 0", "seed: 7"), ("max_steps: 4", "max_steps: 400"), ("group_size: 4", "group_size: 64"),
        ("beta: 0.001", "beta: 0"), ("report_to: []", "report_to: [tensorboard]"),
    )),
]  # fmt: skip
"""Edits of an interrupted run's folder after which `report` still shows what is there."""


def copy(source: Path, target: Path) -> Path:
    """A copy of links: files are replaced, not written into."""
    for path in sorted(source.rglob("*")):
        if path.is_file():
            place = target / path.relative_to(source)
            place.parent.mkdir(parents=True, exist_ok=True)
            os.link(path, place)
    return target
