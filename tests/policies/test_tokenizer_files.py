"""Tokenizers that we write open in the transformers of the released code, and its own files stay as they are."""

import json
import shutil

import pytest

from blip3o_grpo.policies import BLIP3oNext, PromptEncoder
from blip3o_grpo.policies.blip3o_next.config import TINY
from blip3o_grpo.policies.blip3o_next.tokenizer_files import copy_tokenizer, older_words

KNOWN = {"chat_template", "eos_token", "model_max_length", "pad_token", "padding_side", "tokenizer_class"}
"""What transformers 4.51 takes in `tokenizer_config.json`, of all that ours holds."""


def settings_of(folder):
    return json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("written", ["random", "saved again", "from a tokenizer without a folder", "tiny", "scaled"])
def test_what_is_written_names_an_old_class_and_no_new_key(folder, scaled, tmp_path, written):
    if written == "saved again":
        BLIP3oNext.from_pretrained(folder, parts=("ar",)).save_pretrained(tmp_path)
    elif written == "from a tokenizer without a folder":
        encoder = PromptEncoder.from_pretrained(folder)
        PromptEncoder(encoder.tokenizer, encoder.max_length).save(tmp_path)
    places = {"random": folder, "tiny": TINY, "scaled": scaled}
    settings = settings_of(places.get(written, tmp_path))
    assert settings["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert settings.keys() <= KNOWN


def test_a_folder_that_transformers_5_wrote_is_saved_in_older_words_and_reads_the_same(folder, tmp_path):
    newer, saved = tmp_path / "newer", tmp_path / "saved"
    shutil.copytree(folder, newer)
    settings = settings_of(newer) | {"tokenizer_class": "TokenizersBackend", "backend": "tokenizers", "is_local": True}
    (newer / "tokenizer_config.json").write_text(json.dumps(settings | {"extra_special_tokens": ["<im_start>"]}))
    saved.mkdir()
    encoder = PromptEncoder.from_pretrained(newer)
    encoder.save(saved)
    found = settings_of(saved)
    assert found.keys() <= KNOWN | {"additional_special_tokens"}
    assert found["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert found["additional_special_tokens"] == ["<im_start>"]
    shutil.copyfile(folder / "config.json", saved / "config.json")
    again = PromptEncoder.from_pretrained(saved)
    text = 'a red sign that says "TAXI"'
    assert again.encode(text) == encoder.encode(text)


def test_files_of_the_released_code_are_kept_byte_for_byte(tmp_path):
    source, saved = tmp_path / "source", tmp_path / "saved"
    source.mkdir(), saved.mkdir()
    settings = {"tokenizer_class": "Qwen2Tokenizer", "additional_special_tokens": ["<I0>"], "extra_special_tokens": {}}
    files = {
        "tokenizer_config.json": json.dumps(settings),
        "vocab.json": "{ }",
        "merges.txt": "#",
        "tokenizer.json": "{}",
    }
    for name, text in files.items():
        (source / name).write_text(text)
    copy_tokenizer(source, saved)
    assert {file.name: file.read_text() for file in saved.iterdir()} == files
    assert older_words(settings) == settings
