"""Made-up captions files and folders of pictures: taken, or refused in one line that names the file or its line.

Each test stops making up examples after `SECONDS` of its own; what it tried until then counts.
"""

from __future__ import annotations

import json
import os
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from blip3o_grpo.configs import WarmstartConfig
from blip3o_grpo.rewards.images import ImageFileError
from blip3o_grpo.warmstart import WarmstartDataError
from blip3o_grpo.warmstart.captions import digest_pictures, read_captions

SECONDS = 5.0
often = settings(
    max_examples=200, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)
names = st.sampled_from(
    ["0.png", "1.png", "2.png", "./0.png", "../0.png", "/etc/passwd", "sub", "sub/3.png", "none.png", "pipe",
     "text.png", "", " ", "\0", "x" * 300, "cut.png", "loop", "0.png/", "a\nb", "\ud800", "Ünï.png"]
)  # fmt: skip
odd = st.none() | st.booleans() | st.integers() | st.floats() | st.lists(st.text(max_size=3), max_size=2)
records = st.fixed_dictionaries(
    {}, optional={"file_name": names | odd, "text": st.text(max_size=8) | odd, "more": odd | st.text(max_size=3)}
)
good = st.fixed_dictionaries({"file_name": names, "text": st.text(min_size=1, max_size=8)})
lines = (good | records).map(json.dumps) | st.text(max_size=12) | st.just("") | st.just("{" * 3000)


@pytest.fixture
def folder(tmp_path):
    """Three pictures, and what else may lie in a folder."""
    pictures = tmp_path / "pictures"
    (pictures / "sub").mkdir(parents=True)
    for name in ("0.png", "1.png", "2.png", "sub/3.png", "Ünï.png"):
        Image.new("RGB", (8, 8), "red").save(pictures / name)
    (pictures / "text.png").write_text("no picture")
    (pictures / "cut.png").write_bytes((pictures / "0.png").read_bytes()[:20])
    os.mkfifo(pictures / "pipe")
    (pictures / "loop").symlink_to("loop")
    return pictures


def taken_or_refused(folder, content: bytes) -> bool:
    """Whether the file was taken; anything but one line that names where is an error."""
    captions = folder.parent / "captions.jsonl"
    captions.write_bytes(content)
    config = WarmstartConfig(run_dir=str(folder.parent / "run"), images=str(folder), captions=str(captions))
    try:
        pictures = read_captions(config)
        digest_pictures(pictures)
    except (WarmstartDataError, ImageFileError) as error:
        said = str(error)
        assert said.isprintable() and ("captions" in said or "pictures" in said), said
        return False
    assert pictures and all(picture.path.is_file() and picture.caption.strip() for picture in pictures)
    return True


def test_any_lines_are_taken_or_refused(folder):
    ends, found = time.process_time() + SECONDS, set()

    @often
    @given(st.lists(lines, max_size=4), st.sampled_from(["\n", "\r\n", "\n\n"]), st.sampled_from(["", "\ufeff"]))
    def tried(content, end, mark):
        if time.process_time() < ends:
            text = mark + end.join(content)
            found.add(taken_or_refused(folder, text.encode("utf-8", "surrogatepass")))

    tried()
    assert False in found
    assert taken_or_refused(folder, b'{"file_name": "0.png", "text": "a"}\n')


def test_any_bytes_are_taken_or_refused(folder):
    ends = time.process_time() + SECONDS
    whole = b'{"file_name": "0.png", "text": "a"}\n{"file_name": "sub/3.png", "text": "\xc3\xa9"}\n'

    @often
    @given(st.lists(st.tuples(st.integers(0, len(whole) - 1), st.integers(0, 255)), max_size=3))
    def tried(changes):
        if time.process_time() < ends:
            content = bytearray(whole)
            for place, value in changes:
                content[place] = value
            taken_or_refused(folder, bytes(content))

    tried()
