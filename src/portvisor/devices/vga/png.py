"""A PNG file from 8-bit RGB pixels (W3C PNG specification, sections 5 and 11)."""

from __future__ import annotations

import struct
import zlib

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_BIT_DEPTH = 8
_TRUE_COLOUR = 2


def encode_png(width: int, height: int, rgb: bytes) -> bytes:
    """The file's contents; `rgb` is three bytes a pixel, rows from the top."""
    line = 3 * width
    filtered = b"".join(b"\0" + rgb[line * row : line * (row + 1)] for row in range(height))
    header = struct.pack(">IIBBBBB", width, height, _BIT_DEPTH, _TRUE_COLOUR, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(filtered)), (b"IEND", b""))
    return _SIGNATURE + b"".join(_chunk(kind, data) for kind, data in chunks)


def _chunk(kind: bytes, data: bytes) -> bytes:
    body = kind + data
    return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))
