"""The reward `hpsv2` against its published formula, on random weights of reduced size."""

from __future__ import annotations

import numpy as np
import pytest

from blip3o_grpo.rewards import RewardBatch, RewardError, check_reward, find_reward, score
from blip3o_grpo.rewards.learned.hpsv2 import HPSv2, whole_picture
from tests.rewards.tiny_clip import write_tiny_clip

MEAN, DEVIATION = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


@pytest.fixture(scope="module")
def options(tmp_path_factory) -> dict:
    """A checkpoint as the authors write it: the weights below `state_dict`, beside other things."""
    import torch

    folder = tmp_path_factory.mktemp("hpsv2")
    model, weights = write_tiny_clip(folder)
    file = folder / "HPS_v2.1_compressed.pt"
    torch.save({"epoch": 1, "name": "x", "state_dict": torch.load(weights, weights_only=True)}, file)
    return {"weights": str(file), "model": model}


@pytest.fixture(scope="module")
def reward(options) -> HPSv2:
    return HPSv2(**options)


def published(image: np.ndarray, side: int):
    """Floats first, then the longer side, black around it, then the mean: the order of the authors' preprocessing."""
    import torch
    from torch.nn import functional

    pixels = torch.from_numpy(image.copy()).permute(2, 0, 1).float() / 255
    height, width = (round(length * side / max(image.shape[:2])) for length in image.shape[:2])
    pixels = functional.interpolate(pixels[None], (height, width), mode="bicubic", antialias=True)[0]
    top, left = (side - height) // 2, (side - width) // 2
    whole = torch.zeros(3, side, side)
    whole[:, top : top + height, left : left + width] = pixels
    return (whole - torch.tensor(MEAN)[:, None, None]) / torch.tensor(DEVIATION)[:, None, None]


def test_scores_are_cosines_of_the_whole_picture_and_the_prompt(reward, options, pictures):
    """Image by image, with open_clip and the preprocessing written out."""
    import open_clip
    import torch

    model = open_clip.create_model(options["model"], pretrained=options["weights"]).eval()
    tokenize, batch, expected = open_clip.get_tokenizer(options["model"]), pictures(6, "a cat", "a dog", ""), []
    with torch.no_grad():
        for image, prompt in zip(batch.images, batch.prompts, strict=True):
            shown, said, _ = model(published(image, 32)[None], tokenize([prompt]))
            expected.append((shown @ said.T).item())
    assert score(reward, batch) == pytest.approx(expected, abs=1e-5)
    assert len({round(value, 4) for value in expected}) == 6


@pytest.mark.parametrize("shape", [(32, 32), (64, 64), (20, 50), (50, 20), (1, 400), (7, 3)])
def test_all_of_a_picture_is_seen_and_nothing_is_stretched(shape):
    from PIL import Image

    image = np.random.default_rng(0).integers(0, 256, (*shape, 3)).astype(np.uint8)
    found = whole_picture(Image.fromarray(image), 32)
    assert found.shape == (3, 32, 32)
    if min(shape) > 1:
        np.testing.assert_allclose(found, published(image, 32), atol=1e-4)


def test_it_keeps_the_promises_of_a_reward(reward, pictures):
    check_reward(reward, pictures(4))
    assert reward(RewardBatch([], [], [])) == []
    assert len(reward(pictures(35))) == 35


def test_bfloat16_is_near(reward, options, pictures):
    """Within a twentieth of the scores' range."""
    exact, rough = reward(pictures(6)), HPSv2(**options, dtype="bfloat16")(pictures(6))
    assert exact != rough and rough == pytest.approx(exact, abs=(max(exact) - min(exact)) / 20)


def test_weights_of_the_hub_are_found_in_its_cache(reward, options, pictures, hub_cache):
    from pathlib import Path

    hub_cache("xswu/HPSv2", Path(options["weights"]))
    assert HPSv2(model=options["model"])(pictures(2)) == reward(pictures(2))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weights": "/does/not/exist.pt"}, "hpsv2: weights: .* is no file here"),
        ({"weights": "org/name"}, "hf download org/name HPS_v2.1_compressed.pt"),
        ({"model": "ViT-H14"}, "did you mean 'ViT-H-14"),
        ({"device": "gpu"}, "device is 'gpu'"),
        ({"dtype": 16}, "dtype is 16"),
        ({"version": "v2.0"}, "it takes: weights, model, device, dtype"),
    ],
)
def test_options_are_refused_before_a_model_loads(options, change, message, hub_cache):
    with pytest.raises(RewardError, match=message):
        find_reward("hpsv2").check_options({**options, **change})


def test_weights_of_another_model_are_refused(options, tmp_path):
    import torch

    torch.save({"state_dict": {"a": torch.zeros(1)}}, tmp_path / "other.pt")
    with pytest.raises(RewardError, match="do not fit"):
        HPSv2(**{**options, "weights": str(tmp_path / "other.pt")})
