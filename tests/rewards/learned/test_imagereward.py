"""The reward `imagereward` against the published network written out, on random weights of reduced size."""

from __future__ import annotations

from pathlib import Path

import pytest

from blip3o_grpo.rewards import RewardBatch, RewardError, check_reward, find_reward, score
from blip3o_grpo.rewards.learned.imagereward import ImageReward
from tests.rewards.learned import published_imagereward as published

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "cat", "red", "car", "two", "dogs", "on", "sofa", "the"]


def write_tokenizer(folder: Path, words=WORDS) -> str:
    folder.mkdir(exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(words))
    return str(folder)


@pytest.fixture(scope="module")
def options(tmp_path_factory) -> dict:
    import torch

    folder = tmp_path_factory.mktemp("imagereward")
    torch.save(published.make_weights(), folder / "ImageReward.pt")
    return {"weights": str(folder / "ImageReward.pt"), "tokenizer": write_tokenizer(folder / "tokenizer")}


@pytest.fixture(scope="module")
def reward(options) -> ImageReward:
    return ImageReward(**options)


def test_scores_are_those_of_the_published_network(reward, pictures):
    """Image by image and without padding. The words are upper and lower case, known and unknown, and too many."""
    import torch
    from PIL import Image
    from torchvision import transforms

    prepare = transforms.Compose(
        [
            transforms.Resize(published.SIDE, transforms.InterpolationMode.BICUBIC),
            transforms.CenterCrop(published.SIDE),
            transforms.ToTensor(),
            transforms.Normalize((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
        ]
    )
    prompts = ["A CAT", "two red dogs", "a zebra", "", "the " * 50, "two dogs on a sofa"]
    batch, weights, expected = pictures(6, *prompts), published.make_weights(), []
    for image, prompt in zip(batch.images, batch.prompts, strict=True):
        words = [WORDS.index(word) if word in WORDS else 1 for word in prompt.lower().split()]
        with torch.no_grad():
            pixels = prepare(Image.fromarray(image))
            expected.append(published.published_score(weights, pixels, [2, *words[:33], 3]))
    assert score(reward, batch) == pytest.approx(expected, abs=1e-4)
    assert len({round(value, 3) for value in expected}) == 6


def test_prompt_and_image_both_matter(reward, pictures):
    batch = pictures(2, "a cat")
    first, second = reward(batch)
    (other,) = reward(RewardBatch(batch.images[:1], ["two dogs"], [{}]))
    assert abs(first - second) > 1e-3 and abs(first - other) > 1e-3


def test_it_keeps_the_promises_of_a_reward(reward, pictures):
    """The prompts are of different lengths."""
    check_reward(reward, pictures(4, "a", "two dogs on a sofa", "the cat"))
    assert reward(RewardBatch([], [], [])) == []
    assert len(reward(pictures(35))) == 35


def test_bfloat16_is_near(reward, options, pictures):
    """Within a tenth of the scores' range."""
    exact, rough = reward(pictures(6)), ImageReward(**options, dtype="bfloat16")(pictures(6))
    assert exact != rough and rough == pytest.approx(exact, abs=(max(exact) - min(exact)) / 10)


def test_weights_of_the_hub_are_found_in_its_cache(reward, options, pictures, hub_cache):
    hub_cache("THUDM/ImageReward", Path(options["weights"]))
    hub_cache("google-bert/bert-base-uncased", Path(options["tokenizer"]) / "vocab.txt")
    assert ImageReward()(pictures(2)) == reward(pictures(2))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weights": "/does/not/exist.pt"}, "imagereward: weights: .* is no file here"),
        ({"tokenizer": "org/name"}, "imagereward: tokenizer: .*hf download org/name tokenizer.json"),
        ({"device": ""}, "device is ''"),
        ({"dtype": "bf16"}, "dtype is 'bf16'; it must be 'float32' or 'bfloat16'"),
        ({"med_config": "x"}, "it takes: weights, tokenizer, device, dtype"),
    ],
)
def test_options_are_refused_before_a_model_loads(options, change, message, hub_cache):
    with pytest.raises(RewardError, match=message):
        find_reward("imagereward").check_options({**options, **change})


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("blip.visual_encoder.cls_token", "weight 'embeddings.class_embedding' is missing"),
        ("blip.visual_encoder.blocks.1.norm2.bias", "visual_encoder does not fit: .*layers.1.layer_norm2.bias"),
        (
            "blip.text_encoder.encoder.layer.1.crossattention.self.key.bias",
            "text_encoder does not fit: .*self.key.bias",
        ),
        ("mlp.layers.7.bias", "layers.7.bias is missing"),
    ],
)
def test_a_file_that_lacks_a_weight_is_refused(options, tmp_path, name, message):
    """Published code ignores it, and scores with what it drew at random."""
    import torch

    weights = published.make_weights()
    del weights[name]
    torch.save(weights, tmp_path / "ImageReward.pt")
    with pytest.raises(RewardError, match=message) as error:
        ImageReward(str(tmp_path / "ImageReward.pt"), options["tokenizer"])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["head.weight", "blip.text_decoder.weight", "blip.visual_encoder.more", "mlp.more"])
def test_a_file_with_weights_of_something_else_is_refused(options, tmp_path, name):
    import torch

    torch.save({**published.make_weights(), name: torch.zeros(1)}, tmp_path / "ImageReward.pt")
    with pytest.raises(RewardError, match=name.rpartition(".")[2]):
        ImageReward(str(tmp_path / "ImageReward.pt"), options["tokenizer"])


def test_a_tokenizer_with_more_words_than_the_weights_is_refused(options, tmp_path):
    words = [*WORDS, *(f"word{index}" for index in range(published.TOKENS))]
    with pytest.raises(RewardError, match=f"has {len(words)} tokens, and .* knows {published.TOKENS}"):
        ImageReward(options["weights"], write_tokenizer(tmp_path, words))
