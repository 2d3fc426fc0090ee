"""Build the tiny policy that ships with the project, stage by stage, and measure whether GRPO can teach it anything.

    python scripts/build_tiny_policy.py --work runs/tiny_build          # long, resumable
    python scripts/build_tiny_policy.py --work /tmp/smoke --smoke       # a minute, untrained quality
    python scripts/build_tiny_policy.py --work runs/rough --rough       # of the shipped policy, with a rougher head

Stages, each skipped when its output is in the work folder: `autoencoder` (DC-AE) and `tokenizer` (VQ-SigLIP2) on drawn
pixels; the AR part by a warm start on a fixed set of pictures (`ar`), then on pictures that are new in every batch,
first mostly of prompts whose words must be bound (`bound`), then of all (`read`), at last with captions that have
mistakes, which teach it to be unsure of what it reads (`noisy`); after the head's attention is `aligned`, warm starts
of the head (`head`), also with noise on the hidden states (`steady`), so that fine-tuning the AR part does not smear
pictures; last the measurements of `ladder.json`, with the seconds that every stage took.
The finished checkpoint is written in bfloat16, and it is this one that is measured.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from rich.console import Console
from safetensors.torch import load_file, save_file

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from blip3o_grpo.configs.atomic import write_atomically
from blip3o_grpo.configs.policy import PolicySection
from blip3o_grpo.configs.warmstart import WarmstartConfig
from blip3o_grpo.policies.blip3o_next.config import TINY
from blip3o_grpo.policies.blip3o_next.policy import BLIP3oNext
from blip3o_grpo.policies.tiny_world.architecture import LATENT_CHANNELS, random_policy
from blip3o_grpo.warmstart import train_supervised
from scripts.tiny_build import captions, prompts
from scripts.tiny_build.fresh import BINDING, EVERYTHING, Mix, train_on_fresh
from scripts.tiny_build.head import align_head
from scripts.tiny_build.measure import measure, measure_reading
from scripts.tiny_build.patches import Codebook, draw, embed_patches, pixels
from scripts.tiny_build.rough import roughen
from scripts.tiny_build.tools import train_autoencoder, train_tokenizer

console = Console()

PARTS = ("ar", "head", "vision")
SECONDS = "seconds.json"


@dataclass(frozen=True)
class Size:
    """How much work a build does."""

    pictures: int
    autoencoder_steps: int
    tokenizer_steps: int
    ar_steps: int
    bound_steps: int
    read_steps: int
    noisy_steps: int
    head_steps: int
    steady_steps: int
    rough_steps: int
    batch_size: int
    scenes: int
    groups: int


FULL = Size(20_000, 3000, 1100, 2000, 2000, 2000, 500, 2500, 900, 200, 32, 96, 32)
SMOKE = Size(300, 6, 8, 6, 2, 2, 2, 4, 2, 4, 8, 12, 2)


@contextmanager
def timed(work: Path, stage: str) -> Iterator[None]:
    """Add the wall seconds of this call to those of the stage in `seconds.json`, also where it is broken off."""
    started = time.perf_counter()
    try:
        yield
    finally:
        seconds = seconds_of(work)
        seconds[stage] = round(seconds.get(stage, 0) + time.perf_counter() - started)
        write_atomically(work / SECONDS, json.dumps(seconds))


def seconds_of(work: Path) -> dict[str, int]:
    """What `timed` has noted so far; a stage that an older version made is not among it."""
    file = work / SECONDS
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}


def make_codebook(work: Path, size: Size, num_codes: int) -> Codebook:
    """The world's patches, their codes and latents."""
    file = work / "codebook.safetensors"
    if not file.is_file():
        codebook = Codebook.of(pixels(draw(min(8000, size.pictures), 2)), num_codes, LATENT_CHANNELS)
        console.print(f"{len(codebook.distinct)} distinct patches for {num_codes} codes")
        codebook.save(file)
    return Codebook.load(file)


def train_tools(work: Path, size: Size) -> Path:
    """Autoencoder and tokenizer, and embeddings that look like the tokens; returns the checkpoint's folder."""
    tools = work / "tools"
    if tools.is_dir():
        return tools
    with timed(work, "tools"):
        return make_tools(work, tools, size)


def make_tools(work: Path, tools: Path, size: Size) -> Path:
    """`train_tools`, where they are not there."""
    start = random_policy(work / "start", seed=0, corpus=captions.corpus())
    policy = BLIP3oNext.from_pretrained(start, parts=PARTS)
    codebook = make_codebook(work, size, policy.config.num_image_tokens)
    images = pixels(draw(min(8000, size.pictures), 2))
    for name, module, train, steps in (
        ("autoencoder", policy.vae, train_autoencoder, size.autoencoder_steps),
        ("tokenizer", policy.vision, train_tokenizer, size.tokenizer_steps),
    ):
        file = work / f"{name}.safetensors"
        if not file.is_file():
            torch.manual_seed(0)
            train(policy, codebook, images, steps, console)
            save_file(module.state_dict(), file)
        module.load_state_dict(load_file(file))
    embed_patches(policy, codebook)
    policy.save_pretrained(tools)
    return tools


def warm_start(
    work: Path,
    phase: str,
    start: Path,
    size: Size,
    *,
    ar_steps: int = 0,
    head_steps: int = 0,
    rate: float,
    swap: float,
    noise: float = 0.0,
) -> Path:
    """One supervised phase; returns its policy's folder. All phases share the encoded pictures."""
    run, encoded = work / phase, work / "encoded.safetensors"
    run.mkdir(exist_ok=True)
    if encoded.is_file():
        shutil.copyfile(encoded, run / encoded.name)
    steps = ar_steps + head_steps
    config = WarmstartConfig(
        run_dir=str(run),
        policy=PolicySection(path=str(start)),
        images=str(work / "images"),
        captions=str(work / "captions.jsonl"),
        strategy="sequential",
        max_steps=steps,
        ar_steps=ar_steps,
        batch_size=size.batch_size,
        learning_rate=rate,
        warmup_steps=min(50, steps // 4),
        caption_swap=swap,
        condition_noise=noise,
        anchor_weight=1.0,
        checkpoint_every_steps=250,
        threads=torch.get_num_threads(),
    )
    with timed(work, phase):
        finished = train_supervised(config, console).policy
    if (run / encoded.name).is_file():
        shutil.copyfile(run / encoded.name, encoded)
    return finished


def fresh(
    work: Path, phase: str, start: Path, size: Size, steps: int, rate: float, mix: Mix, noise: captions.Noise, seed: int
) -> Path:
    """One phase of the AR part on new pictures; returns its policy's folder."""
    folder = work / phase
    if not folder.is_dir():
        with timed(work, phase):
            train_on_fresh(
                start,
                folder,
                steps=steps,
                batch_size=size.batch_size,
                peak_rate=rate,
                mix=mix,
                noise=noise,
                seed=seed,
                console=console,
                checkpoint=work / f"{phase}.pt",
            )
    return folder


def align(work: Path, start: Path) -> Path:
    """The AR part as it is with a head that looks at the right tokens from its first step."""
    folder = work / "aligned"
    if not folder.is_dir():
        policy = BLIP3oNext.from_pretrained(start, parts=PARTS)
        scenes = draw(256, 77)
        images = pixels(scenes).float() / 255
        with torch.no_grad():
            tokens = policy.vision.encode(images) + policy.image_tokens.start
            latents = policy.vae.encode(images * 2 - 1).latent
        ids, mask = policy.prompts.pad([policy.prompts.encode(scene.prompt) for scene in scenes])
        fits = align_head(policy, torch.cat([ids, tokens], 1), torch.cat([mask, torch.ones_like(tokens)], 1), latents)
        console.print("aligned:", {name: round(fit, 3) for name, fit in fits.items()})
        policy.save_pretrained(folder)
    return folder


def build(work: Path, output: Path | None, size: Size) -> None:
    """All stages; a stage whose output exists is skipped."""
    work.mkdir(parents=True, exist_ok=True)
    if not (work / "captions.jsonl").is_file():
        captions.write_pictures(work, size.pictures, seed=1)
    tools = train_tools(work, size)
    ar = warm_start(work, "ar", tools, size, ar_steps=size.ar_steps, rate=2e-3, swap=0.1)
    bound = fresh(work, "bound", ar, size, size.bound_steps, 1.5e-3, BINDING, captions.Noise(), seed=12)
    read = fresh(work, "read", bound, size, size.read_steps, 1.2e-3, EVERYTHING, captions.Noise(), seed=14)
    noisy = fresh(work, "noisy", read, size, size.noisy_steps, 6e-4, EVERYTHING, captions.NOISE, seed=22)
    head = warm_start(work, "head", align(work, noisy), size, head_steps=size.head_steps, rate=1e-3, swap=0.3)
    steady = warm_start(work, "steady", head, size, head_steps=size.steady_steps, rate=6e-4, swap=0.3, noise=0.25)
    finish(work, steady, output or work / "tiny", size)


def build_rough(work: Path, output: Path | None, size: Size) -> None:
    """The rough variant of the shipped policy (`tiny_build.rough`)."""
    work.mkdir(parents=True, exist_ok=True)
    rough = work / "rough"
    if not rough.is_dir():
        with timed(work, "rough"):
            roughen(
                TINY,
                rough,
                pictures=min(4000, size.pictures),
                steps=size.rough_steps,
                batch_size=size.batch_size,
                console=console,
            )
    finish(work, rough, output or work / "tiny_rough", size, diffusion_steps=2)  # as its recipes paint


def finish(work: Path, trained: Path, output: Path, size: Size, diffusion_steps: int = 8) -> None:
    """The checkpoint as it is shipped, in bfloat16, and its ladder."""
    BLIP3oNext.from_pretrained(trained, parts=PARTS).save_pretrained(output, dtype=torch.bfloat16)
    shipped = BLIP3oNext.from_pretrained(output, parts=PARTS)
    (work / "pictures").mkdir(exist_ok=True)
    record = {
        "ladder": measure(
            shipped,
            work / "pictures",
            num_scenes=size.scenes,
            num_groups=size.groups,
            diffusion_steps=diffusion_steps,
            console=console,
        ),
        "reading": measure_reading(
            shipped, scale=size.scenes / FULL.scenes, diffusion_steps=diffusion_steps, console=console
        ),
        "diffusion_steps": diffusion_steps,
        "noise": asdict(captions.NOISE),
        "seconds": seconds_of(work),
        "size": asdict(size),
    }
    (output / "ladder.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    console.print(f"policy: {output}")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--work", type=Path, default=Path("runs/tiny_build"), help="build folder; a second call resumes"
    )
    parser.add_argument("--output", type=Path, help="where the finished checkpoint goes (default: WORK/tiny)")
    parser.add_argument("--smoke", action="store_true", help="a minute's work of no quality")
    parser.add_argument("--rough", action="store_true", help="the variant of the shipped policy with a rough head")
    parser.add_argument("--prompts", type=Path, help="folder to write the tiny recipes' prompt files to; then stop")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    if arguments.prompts:
        prompts.write_prompts(arguments.prompts)
        return
    torch.set_num_threads(arguments.threads)
    build_policy = build_rough if arguments.rough else build
    build_policy(arguments.work, arguments.output, SMOKE if arguments.smoke else FULL)


if __name__ == "__main__":
    main()
