"""Hub repositories: what is asked for, where the local cache is found, and what is said without a network."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from blip3o_grpo.configs import load_run_config
from blip3o_grpo.policies import BLIP3oNext, CheckpointError, resolve_policy_path


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, folder: Path) -> list[tuple]:
    """Calls of a `snapshot_download` that answers with a local folder."""
    calls = []

    def answer(name: str, revision: str | None, allow_patterns: list[str]) -> str:
        calls.append((name, revision, allow_patterns))
        return str(folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", answer)
    return calls


def test_a_hub_policy_is_fetched_without_pickles(asked, folder):
    assert resolve_policy_path("BLIP3o/BLIP3o-NEXT@v1.0") == folder
    name, revision, patterns = asked[0]
    assert (name, revision) == ("BLIP3o/BLIP3o-NEXT", "v1.0")
    assert set(patterns) == {"*.safetensors", "*.json", "*.jinja", "*.txt"}
    BLIP3oNext.from_pretrained("BLIP3o/BLIP3o-NEXT", parts=("ar",))
    assert asked[1][:2] == ("BLIP3o/BLIP3o-NEXT", None)


def test_a_folder_goes_before_the_hub(asked, folder, tmp_path, monkeypatch):
    shutil.copytree(folder, tmp_path / "ORG" / "NAME")
    monkeypatch.chdir(tmp_path)
    assert resolve_policy_path("ORG/NAME") == Path("ORG/NAME")
    assert not asked


def test_the_local_cache_answers_offline(tmp_path, folder, monkeypatch):
    """The real `snapshot_download` on a cache laid out as the hub's client lays it out."""
    commit = "0" * 40
    repository = tmp_path / "models--ORG--NAME"
    shutil.copytree(folder, repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert resolve_policy_path("ORG/NAME") == repository / "snapshots" / commit
    BLIP3oNext.from_pretrained("ORG/NAME", parts=("ar",))


def test_what_cannot_be_had_is_said_in_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(CheckpointError, match=r"^policy 'ORG/NAME' is no folder here and could not be had from the"):
        resolve_policy_path("ORG/NAME")


def test_diffusion_configs_come_from_a_path_or_the_cache(folder, tmp_path, monkeypatch):
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    text = (copy / "config.json").read_text().replace('"diffusion"', '"ORG/SANA"')
    (copy / "config.json").write_text(text)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    for call in (BLIP3oNext.from_pretrained, BLIP3oNext.check):
        with pytest.raises(CheckpointError, match=r"diffusion_name_or_path='ORG/SANA' is no folder here and could not"):
            call(copy)
    snapshots = tmp_path / "cache" / "models--ORG--SANA"
    shutil.copytree(copy / "diffusion", snapshots / "snapshots" / ("1" * 40))
    (snapshots / "refs").mkdir()
    (snapshots / "refs" / "main").write_text("1" * 40)
    BLIP3oNext.from_pretrained(copy)
    absolute = (copy / "config.json").read_text().replace("ORG/SANA", str(copy / "diffusion"))
    (copy / "config.json").write_text(absolute)
    BLIP3oNext.check(copy)


def test_a_recipe_may_name_a_hub_policy(tmp_path, folder):
    recipe = tmp_path / "run.yaml"
    recipe.write_text(
        "run_dir: run\nprompts: {train: a.txt, heldout: b.txt}\npolicy: {path: ORG/NAME@main}\nrewards: [{name: ocr}]\n"
    )
    assert load_run_config(recipe, []).policy.path == "ORG/NAME@main"
    shutil.copytree(folder, tmp_path / "ORG" / "NAME")
    assert load_run_config(recipe, ["policy.path=tiny"]).policy.path == "tiny"
    recipe.write_text(recipe.read_text().replace("@main", ""))
    assert load_run_config(recipe, []).policy.path == str(tmp_path / "ORG" / "NAME")
