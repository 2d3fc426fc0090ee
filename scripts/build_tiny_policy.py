"""Build the tiny policy that ships with the project, stage by stage, and measure whether GRPO can teach it anything.

    python scripts/build_tiny_policy.py --work runs/tiny_build          # one to three hours on one core, resumable
    python scripts/build_tiny_policy.py --work /tmp/smoke --smoke       # a minute, untrained quality

Stages, each skipped when its output is in the work folder: `autoencoder` and `local` (DC-AE on drawn pixels),
`tokenizer` (VQ-SigLIP2 on drawn pixels), then warm starts: `first` (AR part and diffusion head jointly), after which
the head starts anew with its attention `aligned`, `head` (the AR part frozen) and `noisy` (jointly, captions with
mistakes); last the measurements of `ladder.json`. `--output` receives the finished checkpoint in bfloat16.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cache, partial
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


def train_autoencoder(policy: BLIP3oNext, images: torch.Tensor, steps: int, batch_size: int = 16) -> None:
    """DC-AE on drawn pixels: L1 on pixels and on their differences; latents kept at mean 0 and variance 1.

    Noise on the latents makes the decoder forgive a diffusion head that is slightly off.
    """
    vae = policy.vae.train()
    generator = torch.Generator().manual_seed(1)

    def reconstruction(rows: torch.Tensor) -> dict[str, torch.Tensor]:
        batch = floats(images[rows])
        latents = vae.encode(batch).latent
        output = vae.decode(latents + 0.1 * torch.randn(latents.shape, generator=generator)).sample
        pixel = F.l1_loss(output, batch)
        edges = F.l1_loss(output.diff(dim=-1), batch.diff(dim=-1)) + F.l1_loss(output.diff(dim=-2), batch.diff(dim=-2))
        centred = latents.mean((0, 2, 3)).pow(2).mean() + (latents.std((0, 2, 3)) - 1).pow(2).mean()
        return {"loss": pixel + 0.5 * edges + 0.01 * centred, "l1": pixel}

    _fit("autoencoder", list(vae.parameters()), reconstruction, len(images), steps, batch_size, generator)
    vae.eval()


def localise_latents(policy: BLIP3oNext, images: torch.Tensor, steps: int, batch_size: int = 16) -> None:
    """Make each latent a function of the patch it stands for, so that one image token tells the head all about it.

    A convolutional encoder mixes neighbouring patches into a latent (tokens then explain only three quarters of its
    variance). Here every distinct patch gets one latent vector; the decoder learns to paint from these vectors and the
    encoder to name them.
    """
    vae = policy.vae
    names, counts = name_patches(patches(images, vae.spatial_compression_ratio), policy.config.num_image_tokens)
    with torch.no_grad():
        latents = torch.cat([vae.encode(floats(chunk)).latent for chunk in images.split(64)])
    flat = latents.flatten(2).transpose(1, 2).flatten(0, 1)  # [N * T, C]
    sums = torch.zeros(len(counts), flat.shape[1]).index_add_(0, names.flatten(), flat)
    table = nn.Parameter(sums / counts.clamp(min=1).unsqueeze(1))
    side = latents.shape[-1]
    vae.train()
    generator = torch.Generator().manual_seed(6)

    def painting(rows: torch.Tensor) -> dict[str, torch.Tensor]:
        batch = floats(images[rows])
        wanted = table[names[rows]].transpose(1, 2).unflatten(2, (side, side))
        output = vae.decode(wanted + 0.1 * torch.randn(wanted.shape, generator=generator)).sample
        pixel = F.l1_loss(output, batch)
        edges = F.l1_loss(output.diff(dim=-1), batch.diff(dim=-1)) + F.l1_loss(output.diff(dim=-2), batch.diff(dim=-2))
        naming = F.mse_loss(vae.encode(batch).latent, wanted.detach())
        spread = (table[counts > 0].std(0) - 1).pow(2).mean()
        return {"loss": pixel + 0.5 * edges + naming + 0.01 * spread, "l1": pixel, "naming": naming}

    _fit("localise", [*vae.parameters(), table], painting, len(images), steps, batch_size, generator)
    vae.eval()


def patches(images: torch.Tensor, patch: int) -> torch.Tensor:
    """uint8 `[N, 3, H, W]` to uint8 patches `[N, T, 3 * patch * patch]`."""
    tiles = images.unfold(2, patch, patch).unfold(3, patch, patch)  # [N, 3, h, w, patch, patch]
    return tiles.permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(1, 2)


def name_patches(pieces: torch.Tensor, num_codes: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A code for every patch `[N, T, P]`: each distinct patch its own, the rarest the code nearest in pixels.

    Returns:
        Codes `[N, T]` and how often each occurs `[num_codes]`.
    """
    distinct, owner, counts = pieces.flatten(0, 1).unique(dim=0, return_inverse=True, return_counts=True)
    console.print(f"tokenizer: {len(distinct)} distinct patches for {num_codes} codes")
    order = counts.argsort(descending=True)
    kept, rest = order[:num_codes], order[num_codes:]
    code = torch.empty(len(distinct), dtype=torch.long)
    code[kept] = torch.arange(len(kept))
    if len(rest):
        code[rest] = torch.cdist(distinct[rest].float(), distinct[kept].float(), p=1).argmin(1)
    codes = code[owner].view(pieces.shape[:2])
    return codes, torch.bincount(codes.flatten(), minlength=num_codes)


def train_tokenizer(policy: BLIP3oNext, images: torch.Tensor, steps: int, batch_size: int = 48) -> None:
    """VQ-SigLIP2 on drawn pixels: the nearest code must name the patch; then the decoder must give it back.

    The world has little more than a thousand distinct patches, so the tower learns by cross-entropy over distances to
    codes which patch it sees; vector quantisation by reconstruction alone gives one code to several letters here. The
    decoder follows with the codes frozen, under a pixel head that exists only during training.
    """
    vision = policy.vision.train()
    codebook = vision.bottleneck.regularizer
    tower = policy.config.vision_tower_config
    pieces = patches(images, tower["patch_size"])
    names, counts = name_patches(pieces, policy.config.num_image_tokens)
    weights = counts.clamp(min=1).float().rsqrt()
    nn.init.normal_(codebook.embedding.weight)
    with torch.no_grad():
        codebook.embedding_proj.weight.copy_(torch.eye(tower["bottleneck_dim"]))
        codebook.embedding_proj.bias.zero_()
    naming_parts = [vision.encoder, vision.encode_task_layer, vision.bottleneck.in_linear, codebook]
    parameters = [parameter for part in naming_parts for parameter in part.parameters()]
    generator = torch.Generator().manual_seed(2)

    def naming(rows: torch.Tensor) -> dict[str, torch.Tensor]:
        features = vision.features(images[rows].float() / 255)
        distances = torch.cdist(features.flatten(0, 1), codebook.codes()).pow(2)
        wrong = (distances.argmin(-1) != names[rows].flatten()).float().mean()
        return {"loss": F.cross_entropy(-distances, names[rows].flatten(), weight=weights), "wrong": wrong}

    _fit("naming", parameters, naming, len(images), steps, batch_size, generator)
    to_pixels = nn.Linear(tower["hidden_size"], pieces.shape[-1])
    decoding_parts = [vision.decoder, vision.decode_task_layer, vision.bottleneck.out_linear, to_pixels]
    parameters = [parameter for part in decoding_parts for parameter in part.parameters()]

    def decoding(rows: torch.Tensor) -> dict[str, torch.Tensor]:
        with torch.no_grad():
            quantised = codebook.codes()[names[rows]]
        return {"loss": F.l1_loss(to_pixels(vision.reconstruct(quantised)), floats(pieces[rows]))}

    _fit("decoding", parameters, decoding, len(images), steps // 5, batch_size, generator)
    vision.eval()


@torch.no_grad()
def embed_patches(policy: BLIP3oNext, images: torch.Tensor) -> None:
    """Image tokens start with embeddings (and `lm_head` rows) that look like what they stand for.

    Principal components of each code's mean patch, the small ones amplified. From random embeddings every one of a
    thousand tokens would have to be learnt by itself; like this a letter's shape is shared by its colours.
    """
    pieces = patches(images, policy.config.vision_tower_config["patch_size"]).flatten(0, 1)
    codes = torch.cat([policy.vision.encode(chunk.float() / 255).flatten() for chunk in images.split(256)])
    counts = torch.bincount(codes, minlength=policy.config.num_image_tokens)
    used = counts > 0
    sums = torch.zeros(len(counts), pieces.shape[1]).index_add_(0, codes, floats(pieces))
    mean = sums[used] / counts[used].unsqueeze(1)
    left, scale, _ = torch.linalg.svd(mean - mean.mean(0), full_matrices=False)
    components = (left * scale.sqrt())[:, : policy.config.hidden_size]
    components = components / components.pow(2).mean().sqrt()
    rows = torch.arange(policy.image_tokens.start, policy.image_tokens.stop)[used]
    policy.ar.model.embed_tokens.weight[rows, : components.shape[1]] = 0.5 * components
    policy.ar.lm_head.weight[rows, : components.shape[1]] = 0.05 * components


PLACE_LOGIT = 7.0


@torch.no_grad()
def align_head(policy: BLIP3oNext, ids: torch.Tensor, mask: torch.Tensor) -> None:
    """Half of the cross-attention heads start by looking at the token of their own place.

    Queries know their place from SANA's position embedding, keys from the AR part's hidden states (`anchor_weight`);
    least squares finds the two maps to one-hot rows and columns. Found by training alone this takes longer than all
    the rest.

    Args:
        ids: `[B, L + T]` prompts and image tokens to fit the keys on, with their `mask`.
    """
    sana, side = policy.sana, policy.sana.config.sample_size
    hidden = policy.hidden_states(ids, mask)
    captions = sana.caption_norm(sana.caption_projection(policy.connector(hidden)))[:, 1:]  # [B, T, C]
    place = torch.arange(side * side)
    target = torch.cat([F.one_hot(place // side, side), F.one_hot(place % side, side)], -1).float() - 1 / side
    keys, key_bias = _ridge(captions.flatten(0, 1), target.repeat(len(captions), 1))
    latents = torch.randn(64, sana.config.in_channels, side, side, generator=torch.Generator().manual_seed(4))
    queries, query_bias = _ridge(sana.patch_embed(latents).flatten(0, 1), target.repeat(len(latents), 1))
    width, head_dim = 2 * side, sana.config.cross_attention_head_dim
    scale = (PLACE_LOGIT * head_dim**0.5) ** 0.5
    for block in sana.transformer_blocks:
        for head in range(sana.config.num_cross_attention_heads // 2):
            rows = slice(head * head_dim, head * head_dim + width)
            for projection, weight, bias in (
                (block.attn2.to_k, keys, key_bias),
                (block.attn2.to_q, queries, query_bias),
            ):
                projection.weight[rows] = scale * weight
                projection.bias[rows] = scale * bias
                projection.weight[rows.stop : (head + 1) * head_dim] = 0
                projection.bias[rows.stop : (head + 1) * head_dim] = 0


def _ridge(inputs: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Weight and bias of the least-squares map `[N, D]` to `[N, K]`."""
    mean = inputs.mean(0)
    centred = (inputs - mean).double()
    gram = centred.T @ centred + 1e-5 * len(inputs) * torch.eye(inputs.shape[1], dtype=torch.double)
    weight = torch.linalg.solve(gram, centred.T @ targets.double()).T.float()
    return weight, targets.mean(0) - weight @ mean


def _fit(
    stage: str,
    parameters: list[nn.Parameter],
    losses: Callable[[torch.Tensor], dict[str, torch.Tensor]],
    num_rows: int,
    steps: int,
    batch_size: int,
    generator: torch.Generator,
) -> None:
    """Minimise `losses(rows)["loss"]` over random rows."""
    optimizer = torch.optim.AdamW(parameters, 2e-3, betas=(0.9, 0.95), weight_decay=0.0)
    clock = Clock(stage, steps)
    for step in range(steps):
        schedule(optimizer, step, steps, 2e-3, 50)
        values = losses(torch.randint(num_rows, (batch_size,), generator=generator))
        optimizer.zero_grad()
        values["loss"].backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        clock.tick(step, **{name: value.item() for name, value in values.items()})


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
    return re.sub(pattern, lambda match: (rng.choice(words) if rng.random() < share else match[1]) + match[2], caption)


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
    local_steps: int
    tokenizer_steps: int
    first_steps: int
    head_steps: int
    noisy_steps: int
    batch_size: int
    scenes: int
    groups: int


FULL = Size(20_000, 2100, 700, 1100, 600, 3000, 300, 32, 96, 32)
SMOKE = Size(300, 6, 4, 8, 4, 4, 2, 8, 12, 2)


def train_tools(work: Path, size: Size) -> Path:
    """Autoencoder and tokenizer, and embeddings that look like the tokens; returns the checkpoint's folder."""
    tools = work / "tools"
    if tools.is_dir():
        return tools
    policy = BLIP3oNext.from_pretrained(
        random_policy(work / "start", seed=0, corpus=corpus()), parts=("ar", "head", "vision")
    )
    images = pixels(draw(min(8000, size.pictures), 2))
    for name, module, train, steps in (
        ("autoencoder", policy.vae, train_autoencoder, size.autoencoder_steps),
        ("local", policy.vae, localise_latents, size.local_steps),
        ("tokenizer", policy.vision, train_tokenizer, size.tokenizer_steps),
    ):
        file = work / f"{name}.safetensors"
        if not file.is_file():
            torch.manual_seed(0)
            train(policy, images, steps)
            save_file(module.state_dict(), file)
        module.load_state_dict(load_file(file))
    embed_patches(policy, images)
    policy.save_pretrained(tools)
    return tools


def warm_start(
    work: Path, phase: str, start: Path, steps: int, *, captions: str, strategy: str, rate: float, batch_size: int
) -> Path:
    """One supervised phase; returns its policy's folder. All phases share the encoded pictures."""
    run, encoded = work / phase, work / "encoded.safetensors"
    run.mkdir(exist_ok=True)
    if encoded.is_file():
        shutil.copyfile(encoded, run / encoded.name)
    config = WarmstartConfig(
        run_dir=str(run),
        policy=PolicySection(path=str(start)),
        images=str(work / "images"),
        captions=str(work / f"{captions}.jsonl"),
        max_steps=steps,
        batch_size=batch_size,
        learning_rate=rate,
        warmup_steps=min(50, steps // 4),
        caption_swap=0.25,
        strategy=strategy,
        anchor_weight=1.0,
        checkpoint_every_steps=200,
        threads=torch.get_num_threads(),
    )
    finished = Warmstart(config).run(console)
    if (run / encoded.name).is_file():
        shutil.copyfile(run / encoded.name, encoded)
    return finished


def restart_head(work: Path, start: Path) -> Path:
    """The AR part as it is with a new head that looks at the right tokens from its first step."""
    folder = work / "aligned"
    if not folder.is_dir():
        policy = BLIP3oNext.from_pretrained(start, parts=("ar", "head", "vision"))
        fresh = BLIP3oNext.from_pretrained(work / "start")
        policy.sana, policy.connector = fresh.sana, fresh.connector
        scenes = draw(256, 77)
        with torch.no_grad():
            tokens = policy.vision.encode(pixels(scenes).float() / 255) + policy.image_tokens.start
        ids, mask = policy.prompts.pad([policy.prompts.encode(scene.prompt) for scene in scenes])
        align_head(policy, torch.cat([ids, tokens], 1), torch.cat([mask, torch.ones_like(tokens)], 1))
        policy.save_pretrained(folder)
    return folder


def build(work: Path, output: Path | None, size: Size) -> None:
    """All stages; a stage whose output exists is skipped."""
    work.mkdir(parents=True, exist_ok=True)
    if not (work / "noisy.jsonl").is_file():
        write_pictures(work, size.pictures, seed=1)
    phase = partial(warm_start, work, batch_size=size.batch_size)
    tools = train_tools(work, size)
    first = phase("first", tools, size.first_steps, captions="clean", strategy="joint", rate=1.5e-3)
    aligned = restart_head(work, first)
    head = phase("head", aligned, size.head_steps, captions="clean", strategy="sequential", rate=1.5e-3)
    noisy = phase("noisy", head, size.noisy_steps, captions="noisy", strategy="joint", rate=4e-4)
    policy = BLIP3oNext.from_pretrained(noisy, parts=("ar", "head", "vision"))
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
    parser.add_argument(
        "--work", type=Path, default=Path("runs/tiny_build"), help="build folder; a second call resumes"
    )
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
