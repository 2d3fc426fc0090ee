"""What a PNG says of itself, from its chunks: Pillow takes files whose header it has read past.

The layout is that of the PNG specification (W3C, third edition, sections 5 and 11).
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

SIGNATURE = b"\x89PNG\r\n\x1a\n"
HEADER_BYTES = 13


class PngError(ValueError):
    """Bytes that are no PNG, or a damaged one."""


@dataclass(frozen=True)
class PngHeader:
    """The picture that the chunks describe."""

    width: int
    height: int
    bit_depth: int
    """Bits per channel, 1 to 16."""
    transparent: bool
    """One colour, or entries of the palette, are transparent."""
    animated: bool


def read_header(png: bytes) -> PngHeader:
    """Walk all chunks to the end; unpacks nothing.

    Raises:
        PngError: no PNG, a first chunk that is no header, a second header, a wrong check sum, or no end.
    """
    if not png.startswith(SIGNATURE):
        raise PngError("it does not begin as a PNG does")
    place, kinds, header = len(SIGNATURE), set(), b""
    while b"IEND" not in kinds:
        if place + 12 > len(png):
            raise PngError("it is cut off")
        length, kind = struct.unpack_from(">I4s", png, place)
        end = place + 8 + length
        if end + 4 > len(png):
            raise PngError("it is cut off")
        if zlib.crc32(memoryview(png)[place + 4 : end]) != struct.unpack_from(">I", png, end)[0]:
            raise PngError(f"its chunk {kind.decode('latin-1')} has a wrong check sum")
        if (kind == b"IHDR") is not (not kinds):
            raise PngError("its first chunk, and no other, must be IHDR")
        if not kinds:
            header = png[place + 8 : end]
        kinds.add(kind)
        place = end + 4
    if len(header) != HEADER_BYTES:
        raise PngError(f"its header has {len(header)} bytes instead of {HEADER_BYTES}")
    width, height, depth = struct.unpack_from(">IIB", header)
    return PngHeader(width, height, depth, b"tRNS" in kinds, b"acTL" in kinds)
