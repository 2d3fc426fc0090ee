"""mPLUG by its authors' classes, with random weights of reduced size. Runs in the judge's environment:

.venv-judge/bin/python -m pytest examples/judge_server/test_mplug.py
"""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

SPECIAL = {0: "[PAD]", 100: "[UNK]", 101: "[CLS]", 102: "[SEP]", 103: "[MASK]"}
WORDS = ("yes", "no", "is", "there", "a", "dog", "?")
BERT = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_attention_heads": 2,
    "num_hidden_layers": 3,
    "fusion_layers": 1,
    "text_encoder_layers": 1,
    "text_decode_layers": 1,
    "encoder_width": 64,
    "vocab_size": 120,
    "max_position_embeddings": 64,
}
MODEL = {
    "task": "visual-question-answering",
    "bert_config": "config_bert.json",
    "image_res": 32,
    "vision_width": 768,  # the authors' code knows two widths, 768 and 1024
    "distill": False,
    "clip_name": "ViT-B-16",
    "clip_embed_dim": 32,
    "clip_image_resolution": 32,
    "clip_vision_layers": 2,
    "clip_vision_width": 768,
    "clip_vision_patch_size": 16,
    "clip_context_length": 8,
    "clip_vocab_size": 16,
    "clip_transformer_width": 64,
    "clip_transformer_heads": 1,
    "clip_transformer_layers": 1,
    "beam_size": 2,
    "max_length": 4,
}


def load_example():
    spec = importlib.util.spec_from_file_location("mplug", Path(__file__).with_name("mplug.py"))
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A checkpoint as the hub has it."""
    from modelscope.models.multi_modal.mplug import MPlug

    folder = tmp_path_factory.mktemp("mplug")
    vocabulary = [SPECIAL.get(number, f"[unused{number}]") for number in range(104)] + list(WORDS)
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n")
    (folder / "config_bert.json").write_text(json.dumps(BERT))
    (folder / "config.yaml").write_text(json.dumps(MODEL))  # which is YAML too
    (folder / "configuration.json").write_text(json.dumps({"framework": "pytorch", "task": MODEL["task"]}))
    torch.manual_seed(0)
    model = MPlug.from_pretrained(str(folder), load_checkpoint=False)
    torch.save({"model": model.state_dict()}, folder / "pytorch_model.bin")
    return folder, model.state_dict()


@pytest.fixture(scope="module")
def example(folder):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MPLUG", str(folder[0]))
        module = load_example()
        module.load()
        yield module


def test_the_checkpoints_weights_are_in_the_model(example, folder):
    loaded = example.load().model.state_dict()
    assert loaded.keys() == folder[1].keys()
    assert all(torch.equal(loaded[name], value) for name, value in folder[1].items())


def test_it_answers_in_words_and_every_other_word_than_yes_is_no(example):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8))
    said = example.ask(example.load(), image, "Is there a dog?")
    assert isinstance(said, str)
    assert example.answer(image, "Is there a dog?" + example.ADDED) == ("yes" if said == "yes" else "no")


def test_an_image_is_seen_as_by_the_authors_transform(example):
    from torchvision import transforms

    image = Image.fromarray(np.random.default_rng(1).integers(0, 256, (40, 60, 3), dtype=np.uint8))
    theirs = transforms.Compose(
        [
            transforms.Resize((32, 32), interpolation=transforms.InterpolationMode.BICUBIC),
            transforms.ToTensor(),
            transforms.Normalize(mean=example.MEAN, std=example.SPREAD),
        ]
    )
    torch.testing.assert_close(example.pixels(image, 32)[0], theirs(image), atol=1e-5, rtol=0)


def test_a_folder_without_weights_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("MPLUG", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="no pytorch_model.bin"):
        load_example().load()
