"""Which letters the recogniser has, and which prompts that refuses, without loading anything heavy."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

from blip3o_grpo.rewards import RewardError, find_reward
from blip3o_grpo.rewards.ocr.alphabet import onnx_alphabet, read_settings, readable_letters, unreadable

SHIPPED = Path(find_spec("rapidocr").origin).parent / "models" / "PP-OCRv6_rec_small.onnx"
DATA = Path(os.environ.get("BLIP3O_GRPO_TEST_DATA", Path(__file__).parents[4] / "shared" / "data"))


def field(number: int, content: bytes) -> bytes:
    """A length-delimited field of a protocol buffer."""
    length = bytes([len(content) & 127 | 128, len(content) >> 7])
    return bytes([number << 3 | 2]) + length + content


def recognizer(folder: Path, alphabet: object) -> Path:
    folder.mkdir()
    (folder / "inference.onnx").write_bytes(b"")
    settings = {"Global": {"model_name": "cyrillic_rec"}, "PostProcess": {"character_dict": alphabet}}
    (folder / "inference.yml").write_text(yaml.safe_dump(settings, allow_unicode=True), encoding="utf-8")
    return folder


def test_the_characters_of_an_onnx_file_are_read_past_all_other_fields(tmp_path):
    file = tmp_path / "rec.onnx"
    entries = [field(1, b"shape") + field(2, b"48"), field(1, b"character") + field(2, "a\nБ\n漢".encode())]
    numbers = b"\x08\x96\x01" + b"\x08\x7f" + b"\x11" + b"\xff" * 8 + b"\x1d" + b"\xff" * 4
    other = numbers + field(7, b"\xff" * 300) + field(7, b"\xff" * 128)
    file.write_bytes(other + field(14, entries[0]) + other + field(14, entries[1]) + other)
    assert onnx_alphabet(file) == ["a", "Б", "漢"]
    assert readable_letters(file) == set("aб漢")
    for without in (b"", other, field(14, entries[0]), field(13, entries[1])):
        file.write_bytes(without)
        with pytest.raises(RewardError, match="rec.onnx: its metadata has no 'character'"):
            onnx_alphabet(file)


def test_the_shipped_recogniser_reads_latin_chinese_and_japanese():
    readable = readable_letters(SHIPPED)
    for text in (
        "Exit 24 ½ mc² ÅÉÑßŁĐİ",
        "每日新鲜烘焙",
        "カタカナひらがな",
        "αΩ",
        "ﬁrst １２ don’t…",
        "“…”",
        "ＡＢＣ ẞ ς",
    ):
        assert unreadable([text], readable) == []


@pytest.mark.parametrize(
    ("targets", "beyond"),
    [
        (["ПРИВЕТ"], "ПРИВЕТ"),
        (["Привет мир"], "Приветм"),
        (["שלום"], "שלום"),
        (["مرحبا"], "مرحبا"),
        (["안녕"], "안녕"),
        (["สวัสดี"], "สวัดี"),
        (["Tie\u0302\u0301ng Vi\u1ec7t"], "\u1ebf\u1ec7"),
        (["٣"], "٣"),
        (["OPEN", "ДА"], "ДА"),
        (["OPEN สวัสดี"], "สวัดี"),  # marks on letters too
        (["Room ٣"], "٣"),
        (["Room 13⅓"], ""),  # a symbol costs its share only
        (["⅓"], "⅓"),  # unless nothing else is wanted
        (["⅓ ⅔"], "⅓⅔"),
        (["I ⅓ Д"], "Д"),
        ([], ""),
    ],
)
def test_letters_beyond_the_recogniser_are_named(targets, beyond):
    assert "".join(unreadable(targets, readable_letters(SHIPPED))) == beyond


def test_a_prompt_beyond_the_recogniser_is_refused_and_another_recogniser_takes_it(tmp_path):
    cyrillic = recognizer(tmp_path / "cyrillic", [*"ПРИВЕТ", "\u0451"])
    prompt = 'a sign that says "Привет"'
    with pytest.raises(RewardError, match="PP-OCRv6_small_rec cannot read П р и в е т of 'Привет'"):
        find_reward("ocr").check_prompt(prompt, {}, {})
    with pytest.raises(RewardError, match="cannot read Д А of 'ДА'"):
        find_reward("ocr").check_prompt("p", {"target_text": "ДА"}, {"threads": 2})
    for options in ({"recognizer": str(cyrillic)}, {"recognizer": "cyrillic", "model_folder": str(tmp_path)}):
        find_reward("ocr").check_options(options)
        find_reward("ocr").check_prompt(prompt, {}, options)
        with pytest.raises(RewardError, match="cannot read T A X I of 'TAXI'"):
            find_reward("ocr").check_prompt('says "TAXI"', {}, options)
    find_reward("ocr").check_prompt("nothing quoted", {}, {})


def test_an_unclosed_quotation_is_refused_in_the_check():
    with pytest.raises(RewardError, match="the quotation that begins with '\"TAXI' is never closed"):
        find_reward("ocr").check_prompt('says "TAXI', {}, {})


def test_a_recogniser_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(RewardError, match=r"recognizer 'korean' is no folder.* only PP-OCRv6_small_rec comes with"):
        find_reward("ocr").check_options({"recognizer": "korean"})
    with pytest.raises(RewardError, match="is no folder"):
        find_reward("ocr").check_options({"recognizer": ""})
    for missing in ("inference.onnx", "inference.yml"):
        folder = recognizer(tmp_path / missing, ["a"])
        (folder / missing).unlink()
        with pytest.raises(RewardError, match=f"{missing} is missing"):
            find_reward("ocr").check_options({"recognizer": str(folder)})


@pytest.mark.parametrize("alphabet", ["abc", [1], None])
def test_an_alphabet_that_is_no_list_of_characters_is_refused(tmp_path, alphabet):
    file = recognizer(tmp_path / "rec", alphabet) / "inference.yml"
    with pytest.raises(RewardError, match="inference.yml: PostProcess.character_dict must be a list of characters"):
        readable_letters(file)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "TypeError: "),
        (b"[", "ParserError: while parsing a "),
        (b"\xff", "UnicodeDecodeError: "),
        (b"PostProcess: 3", "TypeError: "),
        (b"Global: {}", "KeyError: 'PostProcess'"),
        (b"PostProcess: {}", "KeyError: 'character_dict'"),
    ],
)
def test_settings_that_cannot_be_read_are_refused_in_one_line(tmp_path, content, reason):
    file = tmp_path / "inference.yml"
    file.write_bytes(content)
    with pytest.raises(RewardError) as refused:
        read_settings(file, "PostProcess", "character_dict")
    assert f"inference.yml: no PostProcess.character_dict in it ({reason}" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_the_official_prompts_are_accepted_and_the_check_is_fast():
    if not DATA.is_dir():
        pytest.skip(f"the published test data is not here ({DATA}); BLIP3O_GRPO_TEST_DATA names its folder")
    prompts = (DATA / "ocr/test.txt").read_text(encoding="utf-8").splitlines()
    start = time.process_time()
    for prompt in prompts:
        find_reward("ocr").check_prompt(prompt, {}, {})
    assert len(prompts) == 1018 and time.process_time() - start < 2


def test_the_check_loads_no_network():
    code = (
        "import sys; from blip3o_grpo.rewards import find_reward; "
        "find_reward('ocr').check_prompt('says \"A\"', {}, {}); "
        "assert not {'torch', 'paddleocr', 'paddlex', 'onnxruntime'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
