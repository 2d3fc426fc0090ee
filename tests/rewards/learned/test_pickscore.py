"""The reward `pickscore` against its published formula, on random weights of reduced size."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from blip3o_grpo.rewards import RewardBatch, RewardError, check_reward, find_reward, score
from blip3o_grpo.rewards.learned.pickscore import PickScore

SIDE = 32


def write_clip(folder: Path, **changes) -> None:
    """A `CLIPModel` with two layers each, and a logit scale of 100 as the published one has."""
    import torch
    from transformers import CLIPConfig, CLIPModel

    sizes = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = CLIPConfig(
        text_config={**sizes, "vocab_size": 514, "bos_token_id": 512, "eos_token_id": 513, "hidden_act": "gelu"},
        vision_config={**sizes, "image_size": SIDE, "patch_size": 8, "hidden_act": "gelu"},
        projection_dim=24,
        logit_scale_init_value=math.log(100),
    )
    torch.manual_seed(0)
    model = CLIPModel(config)
    for name, value in model.state_dict().items():
        if value.ndim > 1:  # transformers starts them too small for texts to differ
            model.get_parameter(name).data.normal_(std=value.shape[-1] ** -0.5)
    tensors = {name: value for name, value in model.state_dict().items() if name not in changes.get("without", ())}
    model.save_pretrained(folder, state_dict=tensors)


def write_processor(folder: Path, side: int = SIDE) -> None:
    """CLIP's tokenizer without any merged pair, and its image processor."""
    from transformers import CLIPImageProcessorPil
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    letters = list(bytes_to_unicode().values())
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    folder.mkdir(exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps({token: index for index, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    CLIPImageProcessorPil(size={"shortest_edge": side}, crop_size={"height": side, "width": side}).save_pretrained(
        folder
    )


@pytest.fixture(scope="module")
def options(tmp_path_factory) -> dict:
    folder = tmp_path_factory.mktemp("pickscore")
    write_clip(folder / "model")
    write_processor(folder / "processor")
    return {"weights": str(folder / "model"), "processor": str(folder / "processor")}


@pytest.fixture(scope="module")
def reward(options) -> PickScore:
    return PickScore(**options)


def test_scores_are_scaled_cosines(reward, options, pictures):
    """As the authors' page computes them: one image and its prompt at a time, through transformers' processor."""
    import torch
    from PIL import Image
    from transformers import CLIPImageProcessorPil, CLIPModel, CLIPProcessor, CLIPTokenizer

    model = CLIPModel.from_pretrained(options["weights"]).eval()
    processor = CLIPProcessor(
        CLIPImageProcessorPil.from_pretrained(options["processor"]), CLIPTokenizer.from_pretrained(options["processor"])
    )
    batch, expected = pictures(6, "a cat", "a red car on a road", "", "a cat", "x" * 200), []
    with torch.no_grad():
        for image, prompt in zip(batch.images, batch.prompts, strict=True):
            inputs = processor(
                text=prompt, images=Image.fromarray(image), truncation=True, max_length=77, return_tensors="pt"
            )
            found = model(**inputs)
            shown, said = (row[0] / row[0].norm() for row in (found.image_embeds, found.text_embeds))
            expected.append((model.logit_scale.exp() * (said @ shown)).item())
    assert score(reward, batch) == pytest.approx(expected, abs=1e-3)
    assert len({round(value, 2) for value in expected}) == 6
    assert max(map(abs, expected)) < 100


def test_it_keeps_the_promises_of_a_reward(reward, pictures):
    """The texts are of different lengths: none depends on how far the others make it be padded."""
    check_reward(reward, pictures(4, "a", "a cat in a hat", "a b c d e f g h i j"))
    assert reward(RewardBatch([], [], [])) == []
    assert len(reward(pictures(35))) == 35


def test_bfloat16_is_near_and_its_scale_is_exact(reward, options, pictures):
    """Within a tenth of the scores' range; 100 itself would become 98.9 in bfloat16."""
    rough = PickScore(**options, dtype="bfloat16")
    assert rough._scale == pytest.approx(100, abs=1e-3)
    exact, near = reward(pictures(6)), rough(pictures(6))
    assert exact != near and near == pytest.approx(exact, abs=(max(exact) - min(exact)) / 10)


def test_weights_of_the_hub_are_found_in_its_cache(reward, options, pictures, hub_cache):
    hub_cache("yuvalkirstain/PickScore_v1", *Path(options["weights"]).iterdir())
    hub_cache("laion/CLIP-ViT-H-14-laion2B-s32B-b79K", *Path(options["processor"]).iterdir())
    assert PickScore()(pictures(2)) == reward(pictures(2))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weights": "/does/not/exist"}, "pickscore: weights: .* is no folder here"),
        ({"processor": "org/name"}, "pickscore: processor: .*hf download org/name preprocessor_config.json"),
        ({"device": "cuda:x"}, "device is 'cuda:x'"),
        ({"dtype": "half"}, "dtype is 'half'"),
        ({"weigths": "x"}, "did you mean 'weights'"),
    ],
)
def test_options_are_refused_before_a_model_loads(options, change, message, hub_cache):
    with pytest.raises(RewardError, match=message):
        find_reward("pickscore").check_options({**options, **change})


def test_weights_that_lack_one_are_refused_and_never_drawn_at_random(options, tmp_path):
    write_clip(tmp_path, without=("visual_projection.weight",))
    with pytest.raises(RewardError, match="lack visual_projection.weight"):
        PickScore(str(tmp_path), options["processor"])


def test_a_processor_of_another_model_is_refused(options, tmp_path):
    write_processor(tmp_path, side=48)
    with pytest.raises(RewardError, match="makes images of 48 px, and .* reads 32 px"):
        PickScore(options["weights"], str(tmp_path))


def test_a_model_of_another_kind_is_refused(options, tmp_path):
    from transformers import BertConfig, BertModel

    BertModel(
        BertConfig(vocab_size=8, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8)
    ).save_pretrained(tmp_path)
    with pytest.raises(RewardError, match="pickscore: "):
        PickScore(str(tmp_path), options["processor"])
