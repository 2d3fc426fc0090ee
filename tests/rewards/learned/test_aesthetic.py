"""The reward `aesthetic` against its published formula, on random weights of reduced size."""

from __future__ import annotations

from pathlib import Path

import pytest

from blip3o_grpo.rewards import RewardBatch, RewardError, check_reward, find_reward, score
from blip3o_grpo.rewards.learned.aesthetic import AestheticReward
from tests.rewards.tiny_clip import write_tiny_clip

WIDTHS = (32, 48, 24, 16, 8, 1)
"""Published: 768, 1024, 128, 64, 16, 1."""


def write_head(file: Path, widths=WIDTHS) -> dict:
    import torch

    generator = torch.Generator().manual_seed(1)
    tensors = {}
    for layer, (read, given) in zip((0, 2, 4, 6, 7), zip(widths, widths[1:], strict=False), strict=True):
        tensors[f"layers.{layer}.weight"] = torch.randn(given, read, generator=generator) / read**0.5
        tensors[f"layers.{layer}.bias"] = torch.randn(given, generator=generator)
    torch.save(tensors, file)
    return tensors


@pytest.fixture(scope="module")
def options(tmp_path_factory) -> dict:
    folder = tmp_path_factory.mktemp("aesthetic")
    model, pretrained = write_tiny_clip(folder)
    write_head(folder / "head.pth")
    return {"weights": str(folder / "head.pth"), "model": model, "pretrained": str(pretrained)}


@pytest.fixture(scope="module")
def reward(options) -> AestheticReward:
    return AestheticReward(**options)


def test_scores_are_the_published_layers_over_the_unit_embedding(reward, options, pictures):
    """Image by image, with open_clip and plain matrices."""
    import open_clip
    import torch
    from PIL import Image

    model, _, transform = open_clip.create_model_and_transforms(options["model"], pretrained=options["pretrained"])
    tensors, expected, batch = torch.load(options["weights"], weights_only=True), [], pictures(5)
    with torch.no_grad():
        for image in batch.images:
            value = model.eval().encode_image(transform(Image.fromarray(image))[None])
            value = value / value.norm(dim=-1, keepdim=True)
            for layer in (0, 2, 4, 6, 7):
                value = value @ tensors[f"layers.{layer}.weight"].T + tensors[f"layers.{layer}.bias"]
            expected.append(value.item())
    assert score(reward, batch) == pytest.approx(expected, abs=1e-5)
    assert len({round(value, 4) for value in expected}) == 5


def test_the_prompt_does_not_matter(reward, pictures):
    assert reward(pictures(3, "a")) == reward(pictures(3, "b", "c"))


def test_it_keeps_the_promises_of_a_reward(reward, pictures):
    check_reward(reward, pictures(4))
    assert reward(RewardBatch([], [], [])) == []


def test_bfloat16_is_near(reward, options, pictures):
    """Within a twentieth of the scores' range."""
    exact, rough = reward(pictures(6)), AestheticReward(**options, dtype="bfloat16")(pictures(6))
    assert exact != rough and rough == pytest.approx(exact, abs=(max(exact) - min(exact)) / 20)


def test_weights_of_the_hub_are_found_in_its_cache(reward, options, pictures, hub_cache, tmp_path):
    import shutil

    shutil.copy(options["weights"], tmp_path / "aesthetic-model.pth")
    hub_cache("trl-lib/ddpo-aesthetic-predictor", tmp_path / "aesthetic-model.pth")
    without = {key: value for key, value in options.items() if key != "weights"}
    assert AestheticReward(**without)(pictures(2)) == reward(pictures(2))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weights": "/does/not/exist.pth"}, "aesthetic: weights: .* is no file here"),
        ({"model": "ViT-L14"}, "did you mean 'ViT-L-14"),
        ({"pretrained": "/does/not/exist.pt"}, "do not exist"),
        ({"device": "tpu"}, "device is 'tpu'"),
        ({"dtype": "float16"}, "dtype is 'float16'; it must be 'float32' or 'bfloat16'"),
        ({"wieghts": "x"}, "did you mean 'weights'"),
    ],
)
def test_options_are_refused_before_a_model_loads(options, change, message):
    with pytest.raises(RewardError, match=message):
        find_reward("aesthetic").check_options({**options, **change})


@pytest.mark.parametrize(
    ("widths", "message"),
    [
        ((16, *WIDTHS[1:]), r"layers.0 has weights \[48, 16\] and biases \[48\]; it must read 32"),
        ((*WIDTHS[:-1], 2), "gives 2 numbers instead of one score"),
    ],
)
def test_a_head_for_other_embeddings_is_refused(options, tmp_path, widths, message):
    write_head(tmp_path / "other.pth", widths)
    with pytest.raises(RewardError, match=message):
        AestheticReward(**{**options, "weights": str(tmp_path / "other.pth")})


def test_a_head_with_a_layer_too_few_is_refused(options, tmp_path):
    import torch

    tensors = write_head(tmp_path / "other.pth")
    del tensors["layers.6.bias"]
    torch.save(tensors, tmp_path / "other.pth")
    with pytest.raises(RewardError, match="layers.6.bias is missing"):
        AestheticReward(**{**options, "weights": str(tmp_path / "other.pth")})
