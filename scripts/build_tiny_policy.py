"""Build the tiny policy that ships with the project, stage by stage, and measure whether GRPO can teach it anything.

    python scripts/build_tiny_policy.py --work runs/tiny_build          # one to three hours on one core, resumable
    python scripts/build_tiny_policy.py --work /tmp/smoke --smoke       # a minute, untrained quality

Stages, each skipped when its output is in the work folder: `autoencoder` (DC-AE on drawn pixels), `tokenizer`
(VQ-SigLIP2 on drawn pixels), `warmstart` (AR and diffusion head jointly, from noisy captions), `ladder` (the
measurements of `ladder.json`). `--output` receives the finished checkpoint in bfloat16.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import shutil
import sys
import time
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from rich.console import Console
from safetensors.torch import load_file, save_file
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from configs.schema import PolicySection, WarmstartConfig
from policies import world
from policies.architecture import random_policy
from policies.blip3o_next import BLIP3oNext
from policies.ladder import climb, shapes_as_asked, shapes_as_drawn
from policies.warmstart import Warmstart
from rewards import Reward, RewardBatch, build_reward

console = Console()

LETTER_NOISE = 0.35
COLOR_NOISE = 0.15
SHAPE_NOISE = 0.2


def draw(num: int, seed: int, *, heldout: bool = False, tag: str | None = None) -> list[world.Scene]:
    """Scenes of one split, reproducible."""
    rng = random.Random(seed)
    return [world.sample(rng, heldout=heldout, tag=tag) for _ in range(num)]


def pixels(scenes: list[world.Scene]) -> torch.Tensor:
    """Drawn scenes as uint8 `[N, 3, H, W]`."""
    return torch.from_numpy(np.stack([world.render(scene) for scene in scenes])).permute(0, 3, 1, 2).contiguous()


def floats(images: torch.Tensor) -> torch.Tensor:
    """uint8 images to [-1, 1]."""
    return images.float() / 127.5 - 1


class Clock:
    """Prints a line every so many steps, with the running mean of each loss."""

    def __init__(self, stage: str, steps: int, every: int = 50):
        self.stage, self.steps, self.every, self.start, self.means = stage, steps, every, time.time(), {}

    def tick(self, step: int, **losses: float) -> None:
        for name, value in losses.items():
            self.means[name] = 0.95 * self.means.get(name, value) + 0.05 * value
        if step % self.every == 0 or step == self.steps - 1:
            text = "  ".join(f"{name} {value:.4f}" for name, value in self.means.items())
            console.print(f"{self.stage} {step}/{self.steps}  {text}  {time.time() - self.start:.0f} s")


def schedule(optimizer: torch.optim.Optimizer, step: int, steps: int, peak: float, warmup: int) -> None:
    """Linear warm-up, then cosine to 2 % of the peak."""
    progress = max(0.0, (step - warmup) / max(1, steps - warmup))
    rate = peak * min(1.0, (step + 1) / warmup) * (0.02 + 0.98 * 0.5 * (1 + np.cos(np.pi * progress)))
    for group in optimizer.param_groups:
        group["lr"] = rate


def train_autoencoder(policy: BLIP3oNext, images: torch.Tensor, steps: int, batch_size: int = 32) -> None:
    """DC-AE on drawn pixels: L1 on pixels and on their differences; latents kept at mean 0 and variance 1."""
    vae = policy.vae.train()
    optimizer = torch.optim.AdamW(vae.parameters(), 2e-3, betas=(0.9, 0.95), weight_decay=0.0)
    clock = Clock("autoencoder", steps)
    generator = torch.Generator().manual_seed(1)
    for step in range(steps):
        schedule(optimizer, step, steps, 2e-3, 50)
        batch = floats(images[torch.randint(len(images), (batch_size,), generator=generator)])
        latents = vae.encode(batch).latent
        output = vae.decode(latents + 0.1 * torch.randn(latents.shape, generator=generator)).sample
        pixel = F.l1_loss(output, batch)
        edges = F.l1_loss(output.diff(dim=-1), batch.diff(dim=-1)) + F.l1_loss(output.diff(dim=-2), batch.diff(dim=-2))
        mean, std = latents.mean((0, 2, 3)), latents.std((0, 2, 3))
        loss = pixel + 0.5 * edges + 0.01 * (mean.pow(2).mean() + (std - 1).pow(2).mean())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        clock.tick(step, l1=pixel.item(), std=std.mean().item())
    vae.eval()


def train_tokenizer(policy: BLIP3oNext, images: torch.Tensor, steps: int, batch_size: int = 48) -> None:
    """VQ-SigLIP2 on drawn pixels: first without quantising, then with a codebook initialised from the features.

    A codebook drawn at random collapses to one code. The pixel head exists only here.
    """
    vision = policy.vision.train()
    patch = policy.config.vision_tower_config["patch_size"]
    to_pixels = nn.Linear(policy.config.vision_tower_config["hidden_size"], 3 * patch * patch)
    parameters = [*vision.parameters(), *to_pixels.parameters()]
    clock = Clock("tokenizer", steps)
    generator = torch.Generator().manual_seed(2)
    half = steps // 2
    for step in range(steps):
        if step in (0, half):  # the second half starts anew with a codebook
            optimizer = torch.optim.AdamW(parameters, 1e-3, betas=(0.9, 0.95), weight_decay=0.0)
        if step == half:
            initialise_codebook(vision, images)
        schedule(optimizer, step % half, half, 2e-3, 20)
        batch = images[torch.randint(len(images), (batch_size,), generator=generator)].float() / 255
        features = vision.features(batch)
        quantised, commitment = features, torch.zeros(())
        if step >= half:
            quantised, _, commitment = vision.bottleneck.regularizer(features)
        output = to_pixels(vision.reconstruct(quantised))  # [B, T, 3 * patch * patch]
        target = F.unfold(batch * 2 - 1, patch, stride=patch).transpose(1, 2)
        loss = F.l1_loss(output, target) + 0.1 * F.mse_loss(output, target) + commitment
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        clock.tick(step, l1=F.l1_loss(output, target).item(), commitment=commitment.item())
    vision.eval()
    used = len(torch.cat([vision.encode(images[i : i + 256].float() / 255) for i in range(0, 4096, 256)]).unique())
    console.print(f"tokenizer: {used} of {policy.config.num_image_tokens} codes used")


def kmeans(points: torch.Tensor, num_centres: int, iterations: int = 12) -> torch.Tensor:
    """Lloyd's algorithm on `[N, dim]`; centres that lose all points move to the points worst served."""
    generator = torch.Generator().manual_seed(3)
    centres = points[torch.randperm(len(points), generator=generator)[:num_centres]].clone()
    for _ in range(iterations):
        nearest = [torch.cdist(chunk, centres).min(1) for chunk in points.split(8192)]
        distance, owner = torch.cat([n.values for n in nearest]), torch.cat([n.indices for n in nearest])
        counts = torch.bincount(owner, minlength=num_centres)
        sums = torch.zeros_like(centres).index_add_(0, owner, points)
        centres = sums / counts.clamp(min=1).unsqueeze(1)
        empty = counts == 0
        centres[empty] = points[distance.topk(int(empty.sum())).indices]
    return centres


@torch.no_grad()
def initialise_codebook(vision: nn.Module, images: torch.Tensor) -> None:
    """Codes at the k-means centres of distinct features; SimVQ's projection starts as the identity."""
    codebook = vision.bottleneck.regularizer
    features = torch.cat([vision.features(images[i : i + 128].float() / 255) for i in range(0, 4096, 128)])
    distinct = torch.unique((features.flatten(0, 1) * 20).round(), dim=0) / 20
    num_codes, dim = codebook.embedding.weight.shape
    codebook.embedding.weight.copy_(kmeans(distinct, num_codes))
    codebook.embedding_proj.weight.copy_(torch.eye(dim))
    codebook.embedding_proj.bias.zero_()
    console.print(f"tokenizer: codebook from {len(distinct)} distinct features")


def noisy_caption(scene: world.Scene, rng: random.Random) -> str:
    """The caption with the mistakes captions from the web have: wrong letters, colours, counts, places.

    A model of the world that learns from these is right to be unsure, and that is what GRPO can mend.
    """
    caption = scene.prompt
    if scene.word:
        alphabet = world.DIGITS if scene.word.isdigit() else world.LETTERS
        word = "".join(rng.choice(alphabet) if rng.random() < LETTER_NOISE else letter for letter in scene.word)
        caption = caption.replace(f'"{scene.word}"', f'"{word}"')
    for words, share in ((world.COLORS, COLOR_NOISE), (world.SHAPES, SHAPE_NOISE), (world.RELATIONS, SHAPE_NOISE)):
        caption = _swap_words(caption, tuple(words), share, rng)
    return _swap_words(caption, ("two", "three", "four"), SHAPE_NOISE, rng)


def _swap_words(caption: str, words: tuple[str, ...], share: float, rng: random.Random) -> str:
    """Replace each of `words` in the caption by a random one of them with probability `share`."""
    pattern = r"\b(" + "|".join(words) + r")(s?)\b"
    return re.sub(
        pattern, lambda match: (rng.choice(words) if rng.random() < share else match[1]) + match[2], caption
    )


def write_pictures(folder: Path, num: int, seed: int) -> None:
    """Training pictures with honest and noisy captions, as any user's data would lie on disk."""
    scenes = draw(num, seed)
    rng = random.Random(seed + 1)
    (folder / "images").mkdir(parents=True, exist_ok=True)
    clean, noisy = [], []
    for number, scene in enumerate(scenes):
        name = f"{number:06d}.png"
        Image.fromarray(world.render(scene)).save(folder / "images" / name, compress_level=1)
        clean.append({"file_name": name, "text": scene.prompt})
        noisy.append({"file_name": name, "text": noisy_caption(scene, rng)})
    for name, records in (("clean.jsonl", clean), ("noisy.jsonl", noisy)):
        (folder / name).write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")


def write_prompts(folder: Path) -> None:
    """Prompt files of the tiny recipes: distinct signs of the training split, and of the held-out split."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, num, seed, heldout in (("train", 1024, 21, False), ("heldout", 128, 22, True)):
        scenes = {scene.key: scene for scene in draw(2 * num, seed, heldout=heldout, tag="sign")}
        records = [{"prompt": scene.prompt, **scene.metadata} for scene in list(scenes.values())[:num]]
        lines = "".join(json.dumps(record) + "\n" for record in records)
        (folder / f"tiny_ocr_{name}.jsonl").write_text(lines, encoding="utf-8")


def corpus() -> list[str]:
    """Captions that hold every lower-case word of the world."""
    return [scene.prompt for tag in ("sign", *world.TAGS) for scene in draw(400, 3, tag=tag)]


def ocr_reader(images: list[np.ndarray], scenes: list[world.Scene]) -> list[float]:
    """The OCR reward in its `blip3o` variant, against the words on the signs."""
    reward = _ocr()
    metadata = [{"target_text": scene.word} for scene in scenes]
    return reward(RewardBatch(images=images, prompts=[scene.prompt for scene in scenes], metadata=metadata))


@cache
def _ocr() -> Reward:
    return build_reward("ocr", {})


def measure(policy: BLIP3oNext, folder: Path, *, num_scenes: int, num_groups: int) -> dict:
    """Both ladders on held-out scenes, as numbers and as picture grids in `folder`."""
    ladder = {}
    kinds = {
        "signs": (draw(num_scenes, 7, heldout=True, tag="sign"), ocr_reader, ocr_reader),
        "shapes": (
            [scene for tag in world.TAGS for scene in draw(num_scenes // 6, 8, heldout=True, tag=tag)],
            shapes_as_drawn,
            shapes_as_asked,
        ),
    }
    for name, (scenes, as_drawn, as_asked) in kinds.items():
        order = random.Random(9).sample(range(len(scenes)), len(scenes))
        rungs, images = climb(policy, [scenes[i] for i in order], as_drawn, as_asked, num_groups=num_groups)
        ladder[name] = {rung: round(score, 3) for rung, score in rungs.items()}
        for rung, pictures in images.items():
            save_grid(pictures[:64], folder / f"{name}_{rung}.png")
        console.print(name, ladder[name])
    return ladder


def save_grid(pictures: list[np.ndarray], file: Path, columns: int = 16, scale: int = 2) -> None:
    """Pictures side by side, enlarged without smoothing."""
    side = world.SIZE * scale + 4
    sheet = Image.new("RGB", (columns * side, -(-len(pictures) // columns) * side), "white")
    for i, picture in enumerate(pictures):
        big = Image.fromarray(picture).resize((world.SIZE * scale,) * 2, Image.Resampling.NEAREST)
        sheet.paste(big, (i % columns * side, i // columns * side))
    sheet.save(file)


@dataclass(frozen=True)
class Size:
    """How much work a build does."""

    pictures: int
    autoencoder_steps: int
    tokenizer_steps: int
    clean_steps: int
    noisy_steps: int
    batch_size: int
    scenes: int
    groups: int


FULL = Size(20_000, 2100, 600, 1500, 400, 32, 96, 32)
SMOKE = Size(300, 6, 8, 4, 2, 8, 12, 2)


def build(work: Path, output: Path | None, size: Size) -> None:
    """All stages; a stage whose output exists is skipped."""
    work.mkdir(parents=True, exist_ok=True)
    start, tools = work / "start", work / "tools"
    if not (work / "noisy.jsonl").is_file():
        write_pictures(work, size.pictures, seed=1)
    if not tools.is_dir():
        random_policy(start, seed=0, corpus=corpus())
        policy = BLIP3oNext.from_pretrained(start, parts=("ar", "head", "vision"))
        images = pixels(draw(min(8000, size.pictures), 2))
        for name, module, train, steps in (
            ("autoencoder", policy.vae, train_autoencoder, size.autoencoder_steps),
            ("tokenizer", policy.vision, train_tokenizer, size.tokenizer_steps),
        ):
            file = work / f"{name}.safetensors"
            if not file.is_file():
                torch.manual_seed(0)
                train(policy, images, steps)
                save_file(module.state_dict(), file)
            module.load_state_dict(load_file(file))
        policy.save_pretrained(tools)
    finished = tools
    for phase, steps, rate in (("clean", size.clean_steps, 1.2e-3), ("noisy", size.noisy_steps, 4e-4)):
        finished = Warmstart(
            WarmstartConfig(
                run_dir=str(work / phase),
                policy=PolicySection(path=str(finished)),
                images=str(work / "images"),
                captions=str(work / f"{phase}.jsonl"),
                max_steps=steps,
                batch_size=size.batch_size,
                learning_rate=rate,
                warmup_steps=min(100, steps // 4),
                caption_swap=0.25,
                checkpoint_every_steps=250,
                threads=torch.get_num_threads(),
            )
        ).run(console)
    policy = BLIP3oNext.from_pretrained(finished, parts=("ar", "head", "vision"))
    (work / "pictures").mkdir(exist_ok=True)
    ladder = measure(policy, work / "pictures", num_scenes=size.scenes, num_groups=size.groups)
    record = {
        "ladder": ladder,
        "noise": {"letter": LETTER_NOISE, "color": COLOR_NOISE, "shape": SHAPE_NOISE},
        "size": asdict(size),
    }
    (work / "ladder.json").write_text(json.dumps(record, indent=2) + "\n")
    if output:
        policy.save_pretrained(output, dtype=torch.bfloat16)
        shutil.copyfile(work / "ladder.json", output / "ladder.json")
        console.print(f"policy: {output}")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("runs/tiny_build"), help="folder of the build; a second call resumes")
    parser.add_argument("--output", type=Path, help="where the finished checkpoint goes")
    parser.add_argument("--smoke", action="store_true", help="a minute's work of no quality")
    parser.add_argument("--prompts", type=Path, help="folder to write the tiny recipes' prompt files to; then stop")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    if arguments.prompts:
        write_prompts(arguments.prompts)
        return
    torch.set_num_threads(arguments.threads)
    build(arguments.work, arguments.output, SMOKE if arguments.smoke else FULL)


if __name__ == "__main__":
    main()
