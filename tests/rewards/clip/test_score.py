"""CLIP score on a tiny model with random weights: the formula, the batching, and what is said when weights lack."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from blip3o_grpo.rewards import RewardBatch, RewardError, check_reward, score
from blip3o_grpo.rewards.clip.model import BATCH, ClipModel
from blip3o_grpo.rewards.clip.score import CLIPScore
from tests.rewards.tiny_clip import write_tiny_clip


@pytest.fixture(scope="module")
def tiny_clip(tmp_path_factory) -> tuple[str, Path]:
    return write_tiny_clip(tmp_path_factory.mktemp("clip"))


def pictures(count: int) -> list[np.ndarray]:
    """Images of different sizes and smooth content."""
    generator = np.random.default_rng(0)
    images = []
    for index in range(count):
        corners = generator.integers(0, 256, (2, 2, 3)).astype(np.uint8)
        images.append(corners.repeat(16 + index, axis=0).repeat(20, axis=1))
    return images


@pytest.fixture(scope="module")
def reward(tiny_clip) -> CLIPScore:
    model, weights = tiny_clip
    return CLIPScore(model, str(weights))


def test_scores_are_scaled_cosines(reward, tiny_clip):
    """Against open_clip used directly, image by image."""
    import open_clip
    import torch

    name, weights = tiny_clip
    model, _, transform = open_clip.create_model_and_transforms(name, pretrained=str(weights))
    from PIL import Image

    images, prompts = pictures(6), ["a cat", "a red car", "a cat", "two dogs", "", "a sign that says STOP"]
    with torch.no_grad():
        cosines = [
            torch.cosine_similarity(
                model.eval().encode_image(transform(Image.fromarray(image))[None]),
                model.encode_text(open_clip.get_tokenizer(name)([prompt])),
            ).item()
            for image, prompt in zip(images, prompts, strict=True)
        ]
    expected = [2.5 * max(cosine, 0) for cosine in cosines]
    assert score(reward, RewardBatch(images, prompts, [{}] * 6)) == pytest.approx(expected, abs=1e-5)
    assert len({round(cosine, 4) for cosine in cosines}) == 6


def test_scores_do_not_depend_on_the_batch_and_repeat(reward):
    count = BATCH + 3
    images, prompts = pictures(count), [f"{number} cats" for number in range(count)]
    whole = score(reward, RewardBatch(images, prompts, [{}] * count))
    assert whole == score(reward, RewardBatch(images, prompts, [{}] * count))
    halves = [score(reward, RewardBatch(images, prompts, [{}] * count)[part]) for part in (slice(0, 5), slice(5, None))]
    assert whole == pytest.approx(halves[0] + halves[1], abs=1e-5)


def test_clip_score_keeps_the_promises_of_a_reward(reward):
    assert len(check_reward(reward, RewardBatch(pictures(3), ["a cat", "a dog", "a " * 200], [{}] * 3)).scores) == 3


def test_odd_images_have_a_score(reward):
    images = [np.zeros((1, 1, 3), np.uint8), np.zeros((4, 5), np.uint8), np.zeros((4, 5, 4), np.uint16)]
    assert len(score(reward, RewardBatch(images, ["a", "b", "c"], [{}] * 3))) == 3


def test_the_same_weights_give_the_same_model(tiny_clip):
    import torch

    first, second = (ClipModel(tiny_clip[0], str(tiny_clip[1])).encode_images(pictures(2)) for _ in range(2))
    assert torch.equal(first, second) and first.shape == (2, 32)
    torch.testing.assert_close(first.norm(dim=-1), torch.ones(2))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": "ViT-L14"}, "did you mean 'ViT-L-14"),
        ({"pretrained": "opanai"}, "did you mean 'openai'"),
        ({"pretrained": "/does/not/exist.pt"}, "'/does/not/exist.pt' do not exist"),
        ({"device": "tpu"}, "'cpu', 'cuda'"),
        ({"device": "cuda:99"}, "GPUs"),
    ],
)
def test_wrong_options_are_named(options, message):
    with pytest.raises(RewardError, match=message):
        CLIPScore(**options)


def test_missing_weights_are_never_downloaded(tmp_path, monkeypatch):
    """The message has the command that fetches them."""
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(RewardError, match=r"not on this machine.*open_clip.create_model\('ViT-L-14'"):
        CLIPScore()
    assert not list(tmp_path.iterdir())


def test_weights_in_the_cache_are_used_with_their_activation(tiny_clip, tmp_path, monkeypatch):
    """A tag's weights load from Hugging Face's cache, with the QuickGELU that OpenAI's were trained with."""
    import shutil

    import huggingface_hub.constants
    import open_clip.pretrained as published

    name, weights = tiny_clip
    cache = tmp_path / "models--someone--clip"
    (cache / "refs").mkdir(parents=True)
    (cache / "refs" / "main").write_text("abc")
    (cache / "snapshots" / "abc").mkdir(parents=True)
    shutil.copy(weights, cache / "snapshots" / "abc" / "open_clip_pytorch_model.bin")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    tag = {"hf_hub": "someone/clip/", "quick_gelu": True, "mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
    monkeypatch.setitem(published._PRETRAINED, name, {"openai": tag})
    by_tag, by_file = ClipModel(name, "openai"), ClipModel(name, str(weights))
    kinds = {type(module).__name__ for module in by_tag._model.modules()}
    assert "QuickGELU" in kinds
    assert "QuickGELU" not in {type(module).__name__ for module in by_file._model.modules()}
    assert by_tag._transform.transforms[-1].mean == (0.5, 0.5, 0.5)


def test_weights_of_another_model_are_refused(tiny_clip, tmp_path):
    import torch

    torch.save({"a": torch.zeros(1)}, tmp_path / "other.pt")
    with pytest.raises(RewardError, match="do not fit"):
        ClipModel(tiny_clip[0], str(tmp_path / "other.pt"))
