"""Image files for tests, good and damaged, byte by byte."""

from __future__ import annotations

import io
import random
import struct
import zlib
from collections.abc import Iterator

import cv2
import numpy as np

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
ORIENTATION = 0x0112
END_OF_JPEG = b"\xff\xd9"


def picture(height: int = 48, width: int = 64, channels: int = 3) -> np.ndarray:
    """(H, W, C) uint8 RGB, smooth and different everywhere."""
    y, x = np.mgrid[0:height, 0:width]
    planes = [60 + x * 2, 200 - y * 3, 90 + x + y, 255 - x]
    return np.stack(planes[:channels], axis=-1).astype(np.uint8)


def encoded(suffix: str, image: np.ndarray, *options: int) -> bytes:
    """Encode RGB, RGBA or grey pixels."""
    order = {3: cv2.COLOR_RGB2BGR, 4: cv2.COLOR_RGBA2BGRA}.get(image.shape[-1] if image.ndim == 3 else 1)
    return cv2.imencode(suffix, image if order is None else cv2.cvtColor(image, order), options)[1].tobytes()


def chunk(kind: bytes, content: bytes) -> bytes:
    """One chunk of a PNG, its checksum right."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(
    rows: bytes,
    width: int,
    height: int,
    *,
    depth: int = 8,
    colour: int = 0,
    before: bytes = b"",
    stream: bytes | None = None,
) -> bytes:
    """A PNG of filtered rows, or of a compressed stream that may be anything; `before` goes between header and data."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    data = chunk(b"IDAT", zlib.compress(rows) if stream is None else stream)
    return PNG_SIGNATURE + header + before + data + chunk(b"IEND", b"")


def chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """(kind, content) of the chunks that are whole."""
    at = len(PNG_SIGNATURE)
    while at + 12 <= len(data) and at + 12 + (length := int.from_bytes(data[at : at + 4], "big")) <= len(data):
        yield data[at + 4 : at + 8], data[at + 8 : at + 8 + length]
        at += 12 + length


def with_right_checksums(data: bytes) -> bytes:
    """A damaged PNG whose chunks have the checksums of what they now contain."""
    return data[:8] + b"".join(chunk(kind, content) for kind, content in chunks(data))


def exif(orientation: int) -> bytes:
    """An EXIF block that says how a camera was held."""
    return b"II*\0\x08\0\0\0" + struct.pack("<HHHIII", 1, ORIENTATION, 3, 1, orientation, 0)


def with_exif(data: bytes, orientation: int, thumbnail: bytes = b"") -> bytes:
    """A JPEG or PNG that carries an EXIF block, and behind it a thumbnail."""
    if data.startswith(PNG_SIGNATURE):
        return data[:33] + chunk(b"eXIf", exif(orientation)) + data[33:]
    content = b"Exif\0\0" + exif(orientation) + thumbnail
    return data[:2] + b"\xff\xe1" + struct.pack(">H", len(content) + 2) + content + data[2:]


def good_files(suffix: str) -> list[bytes]:
    """One file of every kind that a format has."""
    rgb, rgba = picture(), picture(channels=4)
    deep = rgb.astype(np.uint16) * 257
    if suffix == ".jpg":
        options = ([], [cv2.IMWRITE_JPEG_PROGRESSIVE, 1], [cv2.IMWRITE_JPEG_RST_INTERVAL, 3])
        files = [encoded(suffix, image, *chosen) for image in (rgb, rgb[..., 0]) for chosen in options]
        return [*files, with_exif(files[0], 6, files[3])]
    if suffix == ".webp":
        return [encoded(suffix, image, cv2.IMWRITE_WEBP_QUALITY, q) for image in (rgb, rgba) for q in (80, 101)]
    if suffix == ".tiff":
        kinds = (1, 5, 8, 32773)  # none, LZW, deflate, PackBits
        images = (rgb, rgba, rgb[..., 0], deep, deep[..., 0])
        return [encoded(suffix, image, cv2.IMWRITE_TIFF_COMPRESSION, kind) for image in images for kind in kinds]
    if suffix == ".bmp":
        return [encoded(suffix, image) for image in (rgb, rgb[..., 0], rgba)]
    if suffix == ".ppm":
        texts = ([], [cv2.IMWRITE_PXM_BINARY, 0])
        return [encoded(suffix, image, *text) for image in (rgb, deep) for text in texts] + [
            encoded(".pgm", image, *text) for image in (rgb[..., 0], deep[..., 0]) for text in texts
        ]
    files = [encoded(suffix, image) for image in (rgb, rgba, rgb[..., 0], deep, deep[..., 0])]
    palette = png(bytes(5) * 4, 8, 4, depth=4, colour=3, before=chunk(b"PLTE", bytes(range(48))))
    return [*files, palette, with_exif(files[0], 8), animated(files[0])]


def animated(data: bytes) -> bytes:
    """An animated PNG of two frames, of which the first is the image of viewers that know no animations."""
    frame = struct.pack(">IIIIIHHBB", 0, 64, 48, 0, 0, 1, 10, 0, 0)
    control = chunk(b"acTL", struct.pack(">II", 2, 0)) + chunk(b"fcTL", frame)
    content = next(content for kind, content in chunks(data) if kind == b"IDAT")
    second = chunk(b"fcTL", b"\0\0\0\1" + frame[4:]) + chunk(b"fdAT", b"\0\0\0\2" + content)
    return data[:33] + control + data[33:-12] + second + data[-12:]


def mutated(data: bytes, chance: random.Random, others: list[bytes]) -> bytes:
    """A file with something wrong: bits flipped, bytes replaced, cut, joined with another file, numbers absurd."""
    data = bytearray(data)
    reach = min(len(data), chance.choice([40, 120, len(data)]))  # headers more often than pixels
    kind = chance.randrange(7)
    place, other_place = chance.randrange(len(data)), chance.randrange(len(data))
    if kind <= 1:
        for _ in range(chance.choice([1, 1, 2, 8, 40])):
            data[chance.randrange(reach)] ^= 1 << chance.randrange(8)
    elif kind == 2:
        for _ in range(chance.choice([1, 2, 8])):
            data[chance.randrange(reach)] = chance.choice([0, 1, 0x7F, 0x80, 0xFF])
    elif kind == 3:
        data = data[:place]
    elif kind == 4:
        data = data[:place] + data[other_place:]
    elif kind == 5:
        other = chance.choice(others)
        data = data[:place] + other[chance.randrange(len(other)) :]
    else:
        number = chance.choice([0, 1, 2**31 - 1, 2**31, 2**32 - 1, chance.randrange(2**20)])
        data[place % reach : place % reach + 4] = struct.pack(chance.choice("<>") + "I", number)
    return bytes(data)


def recompressed(data: bytes, chance: random.Random) -> bytes:
    """A PNG whose rows are damaged or not as many as they should be, compressed and checked as if nothing had been."""
    rows = bytearray(zlib.decompress(b"".join(content for kind, content in chunks(data) if kind == b"IDAT")))
    for _ in range(chance.choice([1, 3, 20])):
        rows[chance.randrange(len(rows))] = chance.randrange(256)
    rows = rows[: chance.randrange(len(rows))] if chance.random() < 0.5 else rows
    result = io.BytesIO(data[:8])
    result.seek(8)
    for kind, content in chunks(data):
        if kind == b"IEND":
            result.write(chunk(b"IDAT", zlib.compress(bytes(rows))))
        if kind != b"IDAT":
            result.write(chunk(kind, content))
    return result.getvalue()
