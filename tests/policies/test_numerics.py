"""Every part against plain transformers and diffusers on the same files, in float32, within 1e-5.

The reference shares no code with the project: modules are built from the folder's configs, filled with the tensors
whose names begin with the part's prefix, and run as the released code runs them: one prompt at a time without padding,
the connector written out and applied in every step, to zeros and hidden states side by side.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from diffusers import AutoencoderDC, FlowMatchEulerDiscreteScheduler, SanaTransformer2DModel
from safetensors.torch import load_file
from transformers import Qwen3Config, Qwen3ForCausalLM, SiglipVisionConfig, SiglipVisionModel

from blip3o_grpo.policies import BLIP3oNext

PROMPTS = ["a sign", 'a red sign that says "TAXI"', "a photo of two blue circles and a very long afterthought"]
STEPS, GUIDANCE = 4, 2.0


class Reference:
    """The released model from a folder, in the plainest way."""

    def __init__(self, folder: Path):
        self.config = json.loads((folder / "config.json").read_text())
        tensors = {k: v.float() for file in folder.glob("*.safetensors") for k, v in load_file(file).items()}
        self.tensors = tensors
        foreign = ("model.sana", "model.diffusion_connector", "model.vision_tower")
        diffusion = folder / self.config["diffusion_name_or_path"]

        def filled(module: torch.nn.Module, prefix: str) -> torch.nn.Module:
            module.load_state_dict({k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)})
            return module.eval()

        def read(name: str) -> dict:
            return json.loads((diffusion / name).read_text())

        self.ar = Qwen3ForCausalLM(Qwen3Config(**{k: v for k, v in self.config.items() if k != "model_type"}))
        self.ar.load_state_dict({k: v for k, v in tensors.items() if not k.startswith(foreign)})
        self.ar.eval()
        self.sana = filled(SanaTransformer2DModel.from_config(read("transformer/config.json")), "model.sana.")
        self.vae = filled(AutoencoderDC.from_config(read("vae/config.json")), "model.sana_vae.")
        self.scheduler = FlowMatchEulerDiscreteScheduler.from_config(read("scheduler/scheduler_config.json"))

    def hidden(self, ids: list[int]) -> torch.Tensor:
        """Last hidden states `[1, T + 1, D]` of one unpadded sequence, from behind `<im_start>` on."""
        states = self.ar(torch.tensor([ids]), output_hidden_states=True).hidden_states[-1]
        return states[:, ids.index(self.config["image_start_tag_id"]) + 1 :]

    def connect(self, hidden: torch.Tensor) -> torch.Tensor:
        weights = {k.removeprefix("model.diffusion_connector."): v for k, v in self.tensors.items()}
        x = F.gelu(F.linear(hidden, weights["0.weight"], weights["0.bias"]), approximate="tanh")
        x = F.linear(x, weights["2.weight"], weights["2.bias"])
        return x / (x.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt() * weights["3.weight"]

    def step(self, hidden: torch.Tensor, latents: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        both = self.connect(torch.cat([torch.zeros_like(hidden), hidden]))
        times = timestep.expand(2 * len(hidden))
        velocity = self.sana(torch.cat([latents, latents]), both, times).sample
        without, with_condition = velocity.chunk(2)
        velocity = without + GUIDANCE * (with_condition - without)
        return self.scheduler.step(velocity, timestep, latents).prev_sample

    def latents(self, hidden: torch.Tensor, noise: torch.Tensor, steps: int) -> torch.Tensor:
        self.scheduler.set_timesteps(sigmas=torch.linspace(1, 1 / steps, steps).tolist())
        for timestep in self.scheduler.timesteps:
            noise = self.step(hidden, noise, timestep)
        return noise

    def pixels(self, latents: torch.Tensor) -> torch.Tensor:
        return (self.vae.decode(latents / self.vae.config.scaling_factor).sample / 2 + 0.5).clamp(0, 1)


@pytest.fixture(scope="module", params=["tiny", "scaled"])
def pair(request: pytest.FixtureRequest, folder: Path, scaled: Path) -> tuple[BLIP3oNext, Reference, list[list[int]]]:
    """Our policy, the reference, and three sequences of different lengths with random image tokens."""
    path = {"tiny": folder, "scaled": scaled}[request.param]
    policy = BLIP3oNext.from_pretrained(path, parts=("ar", "head", "vision"))
    space, generator = policy.image_tokens, torch.Generator().manual_seed(0)
    rows = [
        policy.prompts.encode(prompt)
        + torch.randint(space.start, space.stop, (space.num_tokens,), generator=generator).tolist()
        for prompt in PROMPTS
    ]
    assert len({len(row) for row in rows}) == 3
    return policy, Reference(path), rows


def close(found: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


@torch.no_grad()
def test_hidden_states_of_a_padded_batch(pair):
    policy, reference, rows = pair
    close(policy.hidden_states(*policy.prompts.pad(rows)), torch.cat([reference.hidden(row) for row in rows]))


@torch.no_grad()
def test_connector(pair):
    policy, reference, rows = pair
    hidden = reference.hidden(rows[0])
    close(policy.connector(hidden), reference.connect(hidden))
    close(policy.connector(torch.zeros_like(hidden)), reference.connect(torch.zeros_like(hidden)))


@torch.no_grad()
def test_one_denoising_step(pair):
    policy, reference, rows = pair
    hidden = torch.cat([reference.hidden(row) for row in rows])
    noise = policy.noise([1, 2, 3])
    close(policy.denoise(hidden, noise, 1, GUIDANCE), reference.latents(hidden, noise, 1))


@torch.no_grad()
def test_full_decode_from_the_same_noise_and_ids(pair):
    """Padded batch of different prompts against one image at a time: ids to pixels, nothing shared but files."""
    policy, reference, rows = pair
    noise = policy.noise([1, 2, 3])
    latents = policy.denoise(policy.hidden_states(*policy.prompts.pad(rows)), noise, STEPS, GUIDANCE)
    pixels = policy.latents_to_pixels(latents)
    for index, row in enumerate(rows):
        expected = reference.latents(reference.hidden(row), noise[index : index + 1], STEPS)
        close(latents[index : index + 1], expected)
        close(pixels[index : index + 1], reference.pixels(expected))
    assert pixels.std() > 0.01  # a picture, not a constant that anything would match


@torch.no_grad()
def test_image_tokenizer(pair):
    """SigLIP's second to last layer, two linear maps, and the nearest code, written out."""
    policy, reference, _ = pair
    prefix = "model.vision_tower.vision_tower."
    tensors = {k.removeprefix(prefix): v for k, v in reference.tensors.items() if k.startswith(prefix)}
    tower = reference.config["vision_tower_config"]
    ours = ("bottleneck_dim", "decoder_layers", "decoder_intermediate_size", "decoder_attention_heads", "l2_normalized")
    encoder = SiglipVisionModel(SiglipVisionConfig(**{k: v for k, v in tower.items() if k not in ours})).eval()
    encoder.load_state_dict({k.removeprefix("encoder."): v for k, v in tensors.items() if k.startswith("encoder.")})
    images = torch.rand(2, 3, tower["image_size"], tower["image_size"], generator=torch.Generator().manual_seed(0))
    x = encoder((images - 0.5) / 0.5, output_hidden_states=True).hidden_states[-2]
    x = torch.tanh(F.linear(x, tensors["encode_task_layer.0.weight"], tensors["encode_task_layer.0.bias"]))
    x = F.linear(x, tensors["bottleneck.in_linear.weight"], tensors["bottleneck.in_linear.bias"])
    close(policy.vision.features(images), x)
    book = "bottleneck.regularizer.embedding"
    codes = F.linear(tensors[f"{book}.weight"], tensors[f"{book}_proj.weight"], tensors[f"{book}_proj.bias"])
    if tower["l2_normalized"]:
        x, codes = F.normalize(x, dim=-1), F.normalize(codes, dim=-1)
    assert torch.equal(policy.vision.encode(images), torch.cdist(x, codes).argmin(-1))
