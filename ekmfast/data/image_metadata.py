"""Metadata of image files: read the orientation, and remove metadata that cannot be read."""

from __future__ import annotations

import struct
import zlib
from typing import Any

from ekmfast._optional import require

PNG, JPEG, TIFF = b"\x89PNG\r\n\x1a\n", b"\xff\xd8", (b"II*\0", b"MM\0*")
# The parts of a file that the picture needs. PNG: chunks. JPEG: of the application markers, those
# with EXIF data and the colour space. TIFF: tags of size, layout, colours and embedded JPEG tables.
PICTURE_CHUNKS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")
PICTURE_MARKERS = (0xFFE1, 0xFFEE)
PICTURE_TAGS = {
    *range(0x00FE, 0x010B), 0x0111, *range(0x0115, 0x0118), 0x011C, 0x0124, 0x0125, 0x013D,
    *range(0x0140, 0x0146), 0x014C, 0x0152, 0x0153, 0x015B, *range(0x0200, 0x0215),
}  # fmt: skip
# Other markers of JPEG.
APP0, APP15, COMMENT, START_OF_SCAN = 0xFFE0, 0xFFEF, 0xFFFE, 0xFFDA
# The tag of the orientation in EXIF and TIFF, and the type of its value.
ORIENTATION, SHORT = 0x0112, 3


def transposition_of(opened: Any) -> Any:
    """The transposition that EXIF data demand for an image; None if none, or if unreadable."""
    transpose = (require("PIL.Image", "torch")).Transpose
    turns = {
        2: transpose.FLIP_LEFT_RIGHT,
        3: transpose.ROTATE_180,
        4: transpose.FLIP_TOP_BOTTOM,
        5: transpose.TRANSPOSE,
        6: transpose.ROTATE_270,
        7: transpose.TRANSVERSE,
        8: transpose.ROTATE_90,
    }
    try:
        tags = opened.tag_v2 if opened.format == "TIFF" else opened.getexif()
        return turns.get(tags.get(ORIENTATION))
    except Exception:  # Pillow raises different types for different malformed metadata
        return None


def without_metadata(content: bytes) -> bytes | None:
    """A PNG, JPEG or TIFF file without the parts that the picture does not need, or None."""
    if content.startswith(PNG):
        return _png_without_metadata(content)
    if content.startswith(JPEG):
        return _jpeg_without_metadata(content)
    if content.startswith(TIFF):
        return _tiff_without_metadata(content)
    return None


def _png_without_metadata(content: bytes) -> bytes:
    kept, start = [PNG], len(PNG)
    while start + 12 <= len(content):
        length, kind = struct.unpack_from(">I4s", content, start)
        chunk = content[start : start + 12 + length]
        if kind in PICTURE_CHUNKS or (kind == b"eXIf" and _is_whole(chunk)):
            kept.append(chunk)
        start += 12 + length
    return b"".join(kept)


def _is_whole(chunk: bytes) -> bool:
    return zlib.crc32(chunk[4:-4]).to_bytes(4, "big") == chunk[-4:]


def _jpeg_without_metadata(content: bytes) -> bytes | None:
    kept, start = [JPEG], len(JPEG)
    while start + 4 <= len(content):
        marker, length = struct.unpack_from(">HH", content, start)
        if marker == START_OF_SCAN:
            return b"".join([*kept, content[start:]])
        if marker in PICTURE_MARKERS or not (APP0 <= marker <= APP15 or marker == COMMENT):
            kept.append(content[start : start + 2 + length])
        start += 2 + length
    return None


def _tiff_without_metadata(content: bytes) -> bytes | None:
    order = "<" if content.startswith(b"I") else ">"
    try:
        (start,) = struct.unpack_from(order + "I", content, 4)
        (n_tags,) = struct.unpack_from(order + "H", content, start)
        tags = [content[i : i + 12] for i in range(start + 2, start + 2 + 12 * n_tags, 12)]
        kept = [tag for tag in tags if _is_of_picture(*struct.unpack(order + "HHI4x", tag))]
    except struct.error:
        return None
    # The directory becomes shorter and names no second picture. Pixels keep their places.
    directory = struct.pack(order + "H", len(kept)) + b"".join(kept) + bytes(4)
    return content[:start] + directory + content[start + len(directory) :]


def _is_of_picture(tag: int, kind: int, count: int) -> bool:
    return tag in PICTURE_TAGS or (tag, kind, count) == (ORIENTATION, SHORT, 1)
