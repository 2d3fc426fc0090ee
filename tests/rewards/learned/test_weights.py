"""Weights are found by path or in the hub's cache, are never downloaded, and what is missing is said in one line."""

from __future__ import annotations

import pickle

import pytest

from blip3o_grpo.rewards import RewardError
from blip3o_grpo.rewards.learned.weights import find_file, find_folder, load_tensors

FILES = (("config.json",), ("model.safetensors", "pytorch_model.bin"))


def test_a_path_goes_first_then_the_cache(tmp_path, hub_cache, monkeypatch):
    file = tmp_path / "score.pt"
    file.write_text("x")
    assert find_file(str(file), "other.pt", "place") == file
    folder = hub_cache("org/name", file)
    assert find_file("org/name", "score.pt", "place") == folder / "score.pt"
    hub_cache("org/name", file, revision="v2")
    assert find_file("org/name@v2", "score.pt", "place") == folder / "score.pt"
    monkeypatch.chdir(tmp_path)
    (tmp_path / "org").mkdir()
    (tmp_path / "org" / "name").write_text("x")
    assert find_file("org/name", "score.pt", "place").read_text() == "x"


def test_a_folder_needs_one_name_of_each_entry(tmp_path, hub_cache):
    for name in ("config.json", "pytorch_model.bin"):
        (tmp_path / name).write_text("x")
    assert find_folder(str(tmp_path), FILES, "place") == tmp_path
    folder = hub_cache("org/name", tmp_path / "config.json")
    with pytest.raises(RewardError, match=r"hf download org/name config.json model.safetensors \(or give a path\)"):
        find_folder("org/name", FILES, "place")
    hub_cache("org/name", tmp_path / "pytorch_model.bin")
    assert find_folder("org/name", FILES, "place") == folder
    (tmp_path / "pytorch_model.bin").unlink()
    with pytest.raises(RewardError, match="has no model.safetensors or pytorch_model.bin"):
        find_folder(str(tmp_path), FILES, "place")


@pytest.mark.parametrize("find", [lambda name: find_file(name, "a.pt", "hpsv2: weights"), None], ids=["file", "folder"])
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "give a path, or ORG/NAME"),
        (None, "give a path, or ORG/NAME"),
        (3, "give a path, or ORG/NAME"),
        ("a\0b", "give a path, or ORG/NAME"),
        ("/does/not/exist", "nor ORG/NAME on the Hugging Face hub"),
        ("name", "nor ORG/NAME on the Hugging Face hub"),
        ("~nobody-of-this-name/x", "no such user|nor ORG/NAME"),
        ("a--b/c", "is no name of the Hugging Face hub"),
        ("org/name", "fetch it once with: hf download org/name "),
        ("org/name@v2", "hf download org/name .*--revision v2"),
    ],
)
def test_what_is_missing_is_one_line_and_is_not_fetched(find, name, message, hub_cache):
    find = find or (lambda name: find_folder(name, FILES, "hpsv2: weights"))
    with pytest.raises(RewardError, match=message) as error:
        find(name)
    assert str(error.value).startswith("hpsv2: weights: ") and "\n" not in str(error.value)


def test_a_missing_file_in_a_folder_is_no_repository(hub_cache):
    with pytest.raises(RewardError, match="'models/score.pt' is no file here"):
        find_file("models/score.pt", "a.pt", "place")


class Evil:
    def __reduce__(self):
        return print, ("run",)


def test_nothing_pickled_is_run(tmp_path, capsys):
    file = tmp_path / "evil.pt"
    file.write_bytes(pickle.dumps(Evil(), protocol=2))
    with pytest.raises(RewardError, match="evil.pt' cannot be read"):
        load_tensors(file, "place")
    assert capsys.readouterr().out == ""


def test_files_of_tensors_are_read_and_nothing_else(tmp_path):
    import torch
    from safetensors.torch import save_file

    tensors = {"a": torch.ones(2)}
    torch.save(tensors, tmp_path / "a.pt")
    save_file(tensors, tmp_path / "a.safetensors")
    for name in ("a.pt", "a.safetensors"):
        assert torch.equal(load_tensors(tmp_path / name, "place")["a"], tensors["a"])
    for content in ([1], {"a": 1}):
        torch.save(content, tmp_path / "a.pt")
        with pytest.raises(RewardError, match="holds no tensors by name"):
            load_tensors(tmp_path / "a.pt", "place")
    for name in ("b.pt", "b.safetensors"):
        (tmp_path / name).write_bytes(b"nothing of the kind")
        with pytest.raises(RewardError, match="cannot be read"):
            load_tensors(tmp_path / name, "place")
