"""PNGs of any structure that hypothesis makes up: the server scores exactly the pixels that were meant, or refuses.

And the reader of files gives a picture of the size that the header says, or one sentence.
"""

import struct
import time
import zlib
from itertools import pairwise

import numpy as np
from fastapi import HTTPException
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from blip3o_grpo.rewards.http.server import ScoreRequest, _decode
from blip3o_grpo.rewards.images import ImageFileError, open_rgb

BUDGET_S = 8
"""For each test; what is not reached in it is left to the next run."""
CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
"""First column, first row, and steps of the passes of an interlaced picture."""
TEXT, GAMMA, ANIMATION = (b"tEXt", b"a\0b"), (b"gAMA", struct.pack(">I", 45455)), (b"acTL", struct.pack(">II", 1, 0))
ORDINARY = "ordinary"
FAULTS = ["early", "twice", "checksum", "cut", "tRNS", "acTL", "short", "flip"]

fuzzed = settings(
    max_examples=300, deadline=None, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def chunk(kind: bytes, data: bytes, checksum: int = 0) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data) ^ checksum)


def rows(pixels: np.ndarray, interlaced: bool) -> bytes:
    """8-bit RGB as a PNG stores it, unfiltered."""
    passes = [pixels[y::dy, x::dx] for x, y, dx, dy in ADAM7] if interlaced else [pixels]
    return b"".join(b"\0" + row.tobytes() for part in passes if part.size for row in part)


@st.composite
def pngs(draw):
    """A file's bytes, and the 8-bit RGB pixels that it means; None where it means something else, or nothing."""
    width, height = draw(st.integers(1, 9)), draw(st.integers(1, 9))
    colour = draw(st.sampled_from([2, 2, 2, *CHANNELS]))
    depth = 8 if colour == 2 and draw(st.booleans()) else draw(st.sampled_from(DEPTHS[colour]))
    interlaced = draw(st.booleans())
    pixels = np.frombuffer(draw(st.binary(min_size=width * height * 3, max_size=width * height * 3)), np.uint8)
    pixels = pixels.reshape(height, width, 3)
    plain = (colour, depth) == (2, 8)
    data = zlib.compress(rows(pixels, interlaced) if plain else bytes(2 * height * (1 + width * CHANNELS[colour] * 2)))
    cuts = sorted(draw(st.lists(st.integers(0, len(data)), max_size=2)))
    pieces = [data[a:b] for a, b in pairwise([0, *cuts, len(data)])]
    parts = [(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, int(interlaced)))]
    parts += draw(st.lists(st.sampled_from([TEXT, GAMMA]), max_size=2, unique=True))
    parts += [(b"PLTE", bytes(range(6)))] if colour == 3 else []
    fault = draw(
        st.sampled_from([ORDINARY] * 6 + ["early", "twice", "checksum", "cut", "tRNS", "acTL", "short", "flip"])
    )
    if fault == "tRNS":
        parts.append((b"tRNS", bytes({0: 2, 2: 6, 3: 1}.get(colour, 2))))
    if fault == "acTL":
        parts.append(ANIMATION)
    if fault == "early":
        parts.insert(0, TEXT)
    if fault == "twice":
        parts.append(parts[0])
    parts += [(b"IDAT", piece[: -len(piece) // 2] if fault == "short" else piece) for piece in pieces]
    chunks = [chunk(kind, content) for kind, content in [*parts, (b"IEND", b"")]]
    if fault == "checksum":
        place = draw(st.integers(0, len(parts) - 1))
        chunks[place] = chunk(*parts[place], checksum=1)
    content = bytearray(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))
    if fault == "flip":
        content[draw(st.integers(0, len(content) - 1))] ^= 1 << draw(st.integers(0, 7))
    if fault == "cut":
        del content[draw(st.integers(0, len(content) - 1)) :]
    return bytes(content), pixels if plain and fault == ORDINARY else None


def test_the_server_scores_what_was_meant_or_refuses():
    end = time.monotonic() + BUDGET_S
    taken = []

    @fuzzed
    @given(pngs())
    def check(case):
        content, meant = case
        if time.monotonic() > end:
            return
        try:
            batch = _decode(ScoreRequest(prompts=["a"], metadata=[{}]), [content], 10_000)
        except HTTPException as error:
            assert meant is None, error.detail
            assert error.status_code in (413, 422) and "images" in error.detail
        else:
            assert meant is not None
            np.testing.assert_array_equal(batch.images[0], meant)
            taken.append(1)

    check()
    assert taken


def test_the_reader_of_files_reads_them_or_says_why_not(tmp_path):
    end = time.monotonic() + BUDGET_S
    path = tmp_path / "picture.png"

    @fuzzed
    @given(pngs())
    def check(case):
        content, meant = case
        if time.monotonic() > end:
            return
        path.write_bytes(content)
        try:
            image = open_rgb(path)
        except ImageFileError as error:
            assert meant is None, error
            assert "picture.png" in str(error) and "\n" not in str(error)
        else:
            assert image.mode == "RGB" and image.width * image.height > 0
            assert meant is None or (np.asarray(image) == meant).all()

    check()
