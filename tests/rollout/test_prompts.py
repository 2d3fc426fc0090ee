"""Prompt files: what is read, and what each bad file's message names."""

import pytest

from blip3o_grpo.rollout.prompts import PromptError, load_prompts


def test_text_file_gives_stable_ids(tmp_path):
    (tmp_path / "a.txt").write_text('a sign that says "TAXI"\n\n  a red circle \n', encoding="utf-8")
    (tmp_path / "b.txt").write_text("a red circle\n", encoding="utf-8")
    first, second = load_prompts(tmp_path / "a.txt")
    assert (first.text, second.text) == ('a sign that says "TAXI"', "a red circle")
    assert load_prompts(tmp_path / "b.txt")[0].id == second.id != first.id


def test_jsonl_keeps_metadata_and_given_ids(tmp_path):
    file = tmp_path / "a.jsonl"
    file.write_text('{"prompt": "x", "id": 7, "tag": "colors"}\n{"prompt": "x", "include": [1]}\n', encoding="utf-8")
    first, second = load_prompts(file)
    assert (first.id, first.metadata) == ("7", {"tag": "colors"})
    assert second.metadata == {"include": [1]}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"", "holds no prompts"),
        ("a.txt", b" \n\n", "holds no prompts"),
        ("a.csv", b"x", ".txt"),
        ("a.txt", b"good\ncaf\xe9\n", "a.txt:2: not valid UTF-8"),
        ("a.txt", b"twice\nother\ntwice\n", "a.txt:3: prompt id"),
        ("a.jsonl", b'{"prompt": "x"}\n{"prompt": \n', "a.jsonl:2: not valid JSON"),
        ("a.jsonl", b'["x"]', "a.jsonl:1: expected an object"),
        ("a.jsonl", b'{"text": "x"}', "a.jsonl:1: the key `prompt`"),
        ("a.jsonl", b'{"prompt": "x", "id": 1}\n{"prompt": "y", "id": "1"}', "a.jsonl:2: prompt id '1'"),
        ("a.jsonl", b'{"prompt": "x", "id": [1]}', "a.jsonl:1: `id` must be"),
    ],
)
def test_bad_file_is_named_with_its_line(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(PromptError) as error:
        load_prompts(tmp_path / name)
    assert message in str(error.value) and str(tmp_path / name) in str(error.value)


def test_missing_file_is_named(tmp_path):
    with pytest.raises(PromptError, match="nowhere.txt: no such prompt file"):
        load_prompts(tmp_path / "nowhere.txt")
