"""What a card is written as: a page that stands alone, JSON that is read again, a model card the hub understands."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from huggingface_hub import ModelCard

from blip3o_grpo.card.card import load_card, weights_digest
from blip3o_grpo.card.model_card import model_card, repeat_command, without_folders, write_model_card
from blip3o_grpo.card.page import write_card
from blip3o_grpo.card.plan import Request
from blip3o_grpo.configs import ConfigError
from blip3o_grpo.run.files import RunFileError
from blip3o_grpo.run.folder import RunFolder


def test_the_page_shows_every_row_with_its_verdict_and_stands_alone(card, tmp_path):
    page = write_card(card, tmp_path / "signs" / "card.html").read_text(encoding="utf-8")
    assert "1 better, 1 not worse, 1 worse, 1 cannot tell" in page and "Worse: heldout/guard." in page
    for verdict, colour in (("better", "up"), ("worse", "down"), ("not worse", "same")):
        assert f'<span class="{colour}">{verdict}</span>' in page
    assert "suite dpg: official data and a judge." in page
    assert "a &lt;b&gt;red&lt;/b&gt; sign" in page and "<b>red</b>" not in page
    assert page.count('src="data:image/png') == 2 and "http" not in page.replace("http-equiv", "")
    assert "--suites ocr --margin guard=0.05 --set evaluation.num_prompts=16" in page
    assert f"blip3o-grpo card --verify {tmp_path / 'signs' / 'card.json'}" in page


def test_a_card_is_read_again_as_it_was(card, tmp_path):
    page = write_card(card, tmp_path / "card.html")
    assert load_card(page) == load_card(page.with_suffix(".json")) == card


def test_what_is_no_card_is_one_sentence(card, tmp_path):
    with pytest.raises(ConfigError, match="no card; give the card.html or card.json"):
        load_card(tmp_path / "nothing.html")
    file = write_card(card, tmp_path / "card.html").with_suffix(".json")
    values = json.loads(file.read_text())
    for broken, message in (
        ({**values, "steps": "forty"}, "'steps' is 'forty'"),
        ({**values, "rows": [*values["rows"], values["rows"][0]]}, "'rows' holds a row twice"),
        (
            {**values, "rows": [{**values["rows"][1], "verdict": "better"}]},
            "'better' does not follow from its interval",
        ),
        ({"kind": values["kind"]}, "is required"),
    ):
        file.write_text(json.dumps(broken))
        with pytest.raises(RunFileError, match=message):
            load_card(file)
    assert write_card(card, tmp_path / "card.html")  # it may be replaced


def test_the_model_card_is_one_of_the_hub_and_names_no_folder_of_this_machine(card, config, tmp_path):
    file = write_model_card(RunFolder(tmp_path / "signs"), card, config)
    assert file == tmp_path / "signs" / "policy" / "README.md"
    text = file.read_text(encoding="utf-8")
    assert str(tmp_path) not in text and "/home/me" not in text
    data = ModelCard(text).data
    assert (data.base_model, data.library_name, data.pipeline_tag) == ("ORG/START-3B", "blip3o-grpo", "text-to-image")
    results = {(r.dataset_config, r.metric_type): r.metric_value for r in data.eval_results}
    assert results == {
        ("heldout", "ocr"): 0.7,
        ("heldout", "guard"): 0.4,
        ("heldout", "image/diversity"): 0.5,
        ("reworded", "ocr"): 0.47,
    }
    assert {r.dataset_name for r in data.eval_results} == {"other.jsonl"}
    assert "license" not in yaml.safe_load(text.split("---")[1])
    assert "`ORG/START-3B` after 40 steps of GRPO (blip3o-grpo) on ocr (ocr, weight 2);" in text
    assert "| heldout/ocr | × 2 | 0.500 (0.400 to 0.600, n=16) | 0.700 (0.600 to 0.800, n=16) | +0.200 (" in text
    assert "| **worse** |" in text and "- suite dpg: official data and a judge." in text
    assert "\nblip3o-grpo train signs/config.yaml run_dir=signs-again\nblip3o-grpo card signs --suites ocr " in text
    assert f"`{'b' * 64}`" in text


def test_reasons_and_settings_in_the_model_card_name_files_without_their_folders(card, config):
    hidden = (
        f"suite understanding: {card.run}/policy: it cannot read pictures, its checkpoint has no '/home/me/a b/ta.pth'",
        "suite geneval: /home/jane doe/detector/config.json: no such file; see https://example.org/a/b and ORG/NAME",
    )
    overrides = [
        "prompts.heldout=/home/jane doe/secret/my.jsonl",
        "rewards.0.options={folder: /home/me/ocr, other: ~jane/b.txt}",
        "evaluation.num_prompts=16",
    ]
    asked = replace(card, left_out=list(hidden), request=Request(overrides=overrides))
    reward = config.rewards[0].model_copy(update={"options": {"folder": "/home/jane doe/detector"}})
    text = model_card(asked, config.model_copy(update={"rewards": (reward,)}))
    for part in ("/home", "jane", "secret", str(Path(card.run).parent)):
        assert part not in text
    assert "- suite understanding: signs/policy: it cannot read pictures, its checkpoint has no 'ta.pth'." in text
    assert "- suite geneval: detector/config.json: no such file; see https://example.org/a/b and ORG/NAME." in text
    assert "--set prompts.heldout=my.jsonl --set 'rewards.0.options={folder: ocr, other: b.txt}' --set eval" in text
    assert "secret/my.jsonl" in repeat_command(asked, "r")  # of the page, which stays on this machine


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("/a/b/c: no", "c: no"),
        ("(/a/b)", "(b)"),
        ("1/2 and/or ../x ./y a / b", "1/2 and/or ../x ./y a / b"),
        ("not /a/b/, nor ~/c/d", "not b, nor d"),
        ("key=/a/b.txt", "key=b.txt"),
    ],
)
def test_paths_are_found_in_sentences(text, shown):
    assert without_folders(text) == shown


def test_a_policy_of_this_machine_is_no_base_model_of_the_hub(card, config):
    text = model_card(replace(card, start="/home/me/start"), config)
    assert "base_model" not in text and "`start` after 40 steps" in text and "/home/me" not in text


def test_the_command_says_again_what_was_asked_for(card):
    assert repeat_command(replace(card, request=Request()), "a run") == "blip3o-grpo card 'a run'"
    assert repeat_command(replace(card, request=Request(suites=[])), "r") == "blip3o-grpo card r --suites ''"


def test_the_digest_is_of_the_weights_alone(card):
    policy = Path(card.run) / "policy"
    before = weights_digest(policy)
    (policy / "README.md").write_text("card")
    assert weights_digest(policy) == before
    (policy / "model.safetensors").write_bytes(b"Weights")
    assert weights_digest(policy) != before
