"""Image files: every format, what is refused and why, and that nothing a file can be ends the process."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from image_files import (
    END_OF_JPEG,
    ORIENTATION,
    animated,
    chunk,
    encoded,
    good_files,
    picture,
    png,
    with_exif,
)
from PIL import Image

from sfi_ros.errors import ImageError
from sfi_ros.frames.decoding import NotLabelsError, decode_deep_photo, decode_labels, decode_photo

FORMATS = (".png", ".jpg", ".webp", ".tiff", ".bmp", ".ppm")


def refused(data: bytes, reason: str, max_megapixels: float = 24) -> None:
    with pytest.raises(ImageError) as caught:
        decode_photo(data, max_megapixels)
    assert reason in str(caught.value)


# What is decoded


@pytest.mark.parametrize("suffix", [".png", ".tiff", ".bmp", ".ppm"])
def test_lossless_formats_give_the_pixels_back(suffix):
    np.testing.assert_array_equal(decode_photo(encoded(suffix, picture())), picture())
    grey = picture()[..., 0]
    np.testing.assert_array_equal(
        decode_photo(encoded(".pgm" if suffix == ".ppm" else suffix, grey)), picture()[..., [0] * 3]
    )


@pytest.mark.parametrize("suffix", [".jpg", ".webp"])
def test_lossy_formats_come_close(suffix):
    decoded = decode_photo(encoded(suffix, picture())).astype(int)
    assert np.abs(decoded - picture()).max() <= 12


@pytest.mark.parametrize("suffix", FORMATS)
def test_every_kind_of_a_format_is_a_photo(suffix):
    for data in good_files(suffix):
        image = decode_photo(data)
        assert image.dtype == np.uint8
        assert image.shape[2] == 3
        assert image.flags.writeable


@pytest.mark.parametrize("holder", [bytes, bytearray, memoryview, lambda data: np.frombuffer(data, np.uint8)])
def test_data_may_lie_in_any_kind_of_memory(holder):
    np.testing.assert_array_equal(decode_photo(holder(encoded(".png", picture()))), picture())


@pytest.mark.parametrize("suffix", [".png", ".tiff", ".ppm"])
@pytest.mark.parametrize("channels", [1, 3])
def test_sixteen_bits_keep_the_upper_eight(suffix, channels):
    chance = np.random.default_rng(0)
    deep = chance.integers(0, 2**16, (9, 11, channels), dtype=np.uint16)
    data = encoded(".pgm" if (suffix, channels) == (".ppm", 1) else suffix, deep[..., 0] if channels == 1 else deep)
    np.testing.assert_array_equal(decode_photo(data), np.broadcast_to(deep >> 8, (9, 11, 3)))


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
@pytest.mark.parametrize("channels", [1, 3])
def test_bits_that_a_camera_does_not_have_are_not_kept(suffix, channels):
    values = np.array([[0, 15, 16, 2048, 4095, 5000]], np.uint16)
    data = encoded(suffix, values if channels == 1 else np.repeat(values[..., None], 3, axis=2))
    assert decode_photo(data, significant_bits=12)[0, :, 1].tolist() == [0, 0, 1, 128, 255, 255]


def test_twelve_bit_cameras_say_so_in_a_pgm():
    values = np.array([[0, 15, 16, 2048, 4095]], np.uint16)
    image = decode_photo(b"P5\n# a camera\n5 1\n4095\n" + values.astype(">u2").tobytes())
    assert image[0, :, 1].tolist() == [0, 0, 1, 128, 255]
    assert decode_photo(b"P2 3 1 100 0 50\n100\n")[0, :, 2].tolist() == [0, 127, 255]


@pytest.mark.parametrize("colour", ["grey and alpha", "rgba", "palette"])
def test_transparency_is_dropped(colour):
    if colour == "rgba":
        data = encoded(".png", picture(channels=4))
        np.testing.assert_array_equal(decode_photo(data), picture())
    elif colour == "palette":
        data = png(
            b"\0\1", 1, 1, colour=3, before=chunk(b"PLTE", bytes([9, 9, 9, 10, 20, 30])) + chunk(b"tRNS", b"\0\0")
        )
        assert decode_photo(data)[0, 0].tolist() == [10, 20, 30]
    else:
        assert decode_photo(png(b"\0\x40\0", 1, 1, colour=4))[0, 0].tolist() == [64, 64, 64]


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
@pytest.mark.parametrize(("orientation", "turns"), [(1, 0), (3, 2), (6, -1), (8, 1)])
def test_photos_stand_upright(suffix, orientation, turns):
    flat = decode_photo(encoded(suffix, picture()))
    turned = decode_photo(with_exif(encoded(suffix, picture()), orientation))
    np.testing.assert_array_equal(turned, np.rot90(flat, turns))


@pytest.mark.parametrize(("orientation", "turns"), [(1, 0), (3, 2), (6, -1), (8, 1)])
def test_tiffs_stand_upright(orientation, turns):
    file = io.BytesIO()
    Image.fromarray(picture()).save(file, "TIFF", tiffinfo={ORIENTATION: orientation}, compression="tiff_lzw")
    np.testing.assert_array_equal(decode_photo(file.getvalue()), np.rot90(picture(), turns))


def test_an_animation_is_its_first_image():
    np.testing.assert_array_equal(decode_photo(animated(encoded(".png", picture()))), picture())


def test_what_stands_behind_the_end_is_padding():
    for suffix in (".png", ".jpg", ".webp"):
        data = encoded(suffix, picture())
        np.testing.assert_array_equal(decode_photo(data + bytes(1000)), decode_photo(data))


# Labels


def test_labels_are_returned_as_stored():
    ids = np.random.default_rng(0).integers(0, 256, (20, 30), dtype=np.uint8)
    np.testing.assert_array_equal(decode_labels(encoded(".png", ids)), ids)
    turned = with_exif(encoded(".png", ids), 6)
    np.testing.assert_array_equal(decode_labels(turned), ids)


def test_a_label_image_that_was_shrunk_without_loss_means_the_same():
    assert decode_labels(png(b"\0\xa0", 4, 1, depth=1)).tolist() == [[255, 0, 255, 0]]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (encoded(".png", picture()), "has 3"),
        (encoded(".png", picture(channels=4)), "has 4"),
        (png(b"\0\0", 1, 1, colour=3, before=chunk(b"PLTE", bytes(3))), "has 3"),
        (png(b"\0\x40\0", 1, 1, colour=4), "has 2"),
        (encoded(".png", picture()[..., 0].astype(np.uint16)), "8-bit ids, this one has 16 bits"),
        (encoded(".jpg", picture()[..., 0]), "this one is a JPEG"),
        (encoded(".bmp", picture()[..., 0]), "this one is a BMP"),
    ],
)
def test_what_cannot_be_ids_is_said(data, reason):
    with pytest.raises(NotLabelsError, match=reason):
        decode_labels(data)


# What is refused


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "is empty"),
        (b"no image", "starts with 6e 6f 20 69"),
        (b"GIF89a" + bytes(50), "accepted are PNG, JPEG"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n", "Git LFS pointer.*git lfs pull"),
        (b"\0\5\x16\7" + bytes(120), "no image format"),  # AppleDouble
    ],
)
def test_what_is_no_image_is_said(data, reason):
    with pytest.raises(ImageError, match=reason):
        decode_photo(data)
    with pytest.raises(ImageError, match=reason):
        decode_labels(data)


@pytest.mark.parametrize("suffix", FORMATS)
def test_truncated_files_are_refused_wherever_they_end(suffix):
    for data in good_files(suffix):
        lengths = [int(len(data) * part) for part in (0.02, 0.3, 0.7, 0.95)]
        is_text = data.startswith((b"P2", b"P3"))  # where a number that is cut is still a number
        for length in lengths if is_text else [*lengths, len(data) - 1]:
            with pytest.raises(ImageError):
                decode_photo(data[:length])


def test_the_thumbnail_of_a_truncated_jpeg_does_not_end_it():
    data = with_exif(encoded(".jpg", picture()), 1, thumbnail=encoded(".jpg", picture(8, 8)))
    assert decode_photo(data).shape == (48, 64, 3)
    refused(data[: -len(data) // 3], "truncated")


@pytest.mark.parametrize("background", [0, 128])
@pytest.mark.parametrize(
    ("options", "lengths"),
    [
        ((), (30, 60, 150, 250)),
        ((cv2.IMWRITE_JPEG_RST_INTERVAL, 3), (30, 60, 150, 250)),
        ((cv2.IMWRITE_JPEG_PROGRESSIVE, 1), (20, 30)),  # a later scan that is cut costs sharpness only
    ],
)
def test_a_truncated_jpeg_that_was_given_an_end_is_refused(options, lengths, background):
    """libjpeg paints what is missing grey. Grey that is in the picture, even in its corner, is no damage."""
    image = picture()
    image[-20:] = background
    data = encoded(".jpg", image, *options)
    assert decode_photo(data).shape == image.shape
    scan = data.index(b"\xff\xda")
    for kept in lengths:
        for orientation in (1, 3, 6, 8):
            damaged = with_exif(data[: scan + kept] + END_OF_JPEG, orientation)
            refused(damaged, "JPEG of 64x48 is damaged: its pixels end before the image does")
            with pytest.raises(ImageError):
                decode_deep_photo(damaged)


def header_of(kind: str, width: int, height: int) -> bytes:
    """A file of a few bytes that announces a size."""
    if kind == "png":
        return png(b"", width, height)
    if kind == "jpeg":
        data = bytearray(encoded(".jpg", picture()))
        at = data.index(b"\xff\xc0") + 5
        data[at : at + 4] = struct.pack(">HH", height, width)
        return bytes(data)
    if kind == "webp":
        data = bytearray(encoded(".webp", picture(), cv2.IMWRITE_WEBP_QUALITY, 80))
        at = data.index(b"\x9d\x01\x2a") + 3
        data[at : at + 4] = struct.pack("<HH", width, height)
        return bytes(data)
    if kind == "tiff":
        rows_per_strip = 278  # a tag's number, which OpenCV takes as a parameter; only newer ones have a name for it
        data = bytearray(encoded(".tiff", picture(), cv2.IMWRITE_TIFF_COMPRESSION, 5, rows_per_strip, 2**16))
        for tag, value in ((256, width), (257, height), (278, height)):
            at = data.index(struct.pack("<HH", tag, 3), struct.unpack_from("<I", data, 4)[0])
            data[at + 2 : at + 12] = struct.pack("<HII", 4, 1, value)
        return bytes(data)
    if kind == "bmp":
        data = bytearray(encoded(".bmp", picture()))
        data[18:26] = struct.pack("<ii", width, height)
        return bytes(data)
    return f"P6 {width} {height} 255 ".encode()


@pytest.mark.parametrize("kind", ["png", "jpeg", "tiff", "pnm"])
def test_the_size_is_checked_before_anything_is_decoded(kind, monkeypatch):
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("was decoded"))
    refused(header_of(kind, 60000, 60000), "60000x60000 exceeds the limit of 24 megapixels")
    refused(header_of(kind, 5000, 5000), "exceeds the limit of 24 megapixels")
    refused(header_of(kind, 5000, 5000), "exceeds the limit of 0.5 megapixels", 0.5)
    refused(header_of(kind, 0, 100), "no pixels")


def test_the_size_of_a_webp_is_checked_as_well():
    refused(header_of("webp", 16383, 16383), "16383x16383 exceeds the limit")
    extended = b"VP8X" + struct.pack("<I4x", 10) + bytes([7, 0, 0, 7, 0, 0])  # 8x8, before an image of another size
    content = extended + header_of("webp", 16383, 16383)[12:]
    refused(b"RIFF" + struct.pack("<I", 4 + len(content)) + b"WEBP" + content, "WebP of 8x8 is damaged")


@pytest.mark.parametrize("kind", ["png", "webp", "tiff", "bmp", "pnm"])
def test_few_bytes_do_not_become_many_pixels(kind):
    refused(header_of(kind, 4000, 4000), "4000x4000" if kind == "png" else "")


def test_a_chunk_beyond_the_end_takes_no_memory(monkeypatch):
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("was decoded"))
    good = encoded(".png", picture(4, 4))
    for kind in (b"tEXt", b"acTL", b"IDAT", b"iCCP", b"zzZz"):
        data = good[:33] + struct.pack(">I", 2**31 - 1) + kind + good[33:]
        refused(data, f"chunk {kind.decode()} announces 2147483647 bytes")


def test_text_that_inflates_to_anything_is_not_inflated():
    bomb = chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(50_000_000))) + chunk(
        b"iCCP", b"a\0\0" + zlib.compress(bytes(50_000_000))
    )
    good = encoded(".png", picture())
    np.testing.assert_array_equal(decode_photo(good[:33] + bomb + good[33:]), picture())


@pytest.mark.parametrize("marker", [0x01, 0xD0, 0xD3, 0xD7])
def test_markers_without_length_hide_no_header(marker):
    """A reader that takes one for a segment sees the 16x16 behind it; libjpeg decodes what comes first."""
    small, large = encoded(".jpg", picture(16, 16)), encoded(".jpg", np.zeros((2000, 2000, 3), np.uint8))
    frame = small[small.index(b"\xff\xc0") :]
    hidden = frame[: 2 + struct.unpack(">H", frame[2:4])[0]]
    data = large[:2] + bytes([0xFF, marker]) + struct.pack(">H", len(hidden) + 2) + hidden + large[2:]
    refused(data, "damaged")
    bare = large[:2] + bytes([0xFF, marker]) + large[2:]
    refused(bare, f"marker ff {marker:02x} outside of a scan")


def test_what_was_decoded_is_compared_with_the_header(monkeypatch):
    data = encoded(".jpg", picture())
    monkeypatch.setattr(cv2, "imdecode", lambda *_: np.zeros((8000, 8000, 3), np.uint8))
    refused(data, "JPEG of 64x48 is damaged: decoded it is 8000x8000")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda d: d[:-2] + d[d.index(b"\xff\xc0") : d.index(b"\xff\xc4")] + END_OF_JPEG, "two frame headers"),
        (lambda d: d[: d.index(b"\xff\xc0")] + d[d.index(b"\xff\xda") :], "no frame header"),
        (lambda d: d[: d.index(b"\xff\xda")] + END_OF_JPEG, "no pixels behind its header"),
        (lambda d: d[: d.index(b"\xff\xda")] + b"junk" + d[d.index(b"\xff\xda") :], "no marker"),
        (lambda d: d[:-2] + d[d.index(b"\xff\xda") : -2] * 60 + END_OF_JPEG, "more than 50 scans"),
        (lambda d: d.replace(b"\xff\xc0", b"\xff\xc9"), "arithmetic"),
        (lambda d: d[:-20] + d, "ff d8 outside of a scan"),  # a stream that lost something in between
    ],
)
def test_damaged_jpegs_are_named(change, reason):
    refused(change(encoded(".jpg", picture())), reason)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (png(b"\0" + bytes(64), 64, 1, stream=b"no stream"), "damaged"),
        (png(b"\0" + bytes(64), 64, 2), "damaged"),  # a row too few
        (png(b"\7" + bytes(64), 64, 1), "damaged"),  # a filter that does not exist
        (png(b"", 64, 1, stream=zlib.compress(bytes(65))[:-1] + b"\7"), "damaged"),  # a wrong checksum inside
        (png(bytes(65), 64, 1, depth=3), "kind of pixels"),
        (png(bytes(65), 64, 1, colour=5), "kind of pixels"),
        (png(bytes(65), 64, 1, colour=3), "no palette"),
        (png(bytes(65), 64, 1, colour=3, before=chunk(b"PLTE", bytes(4))), "a palette of 4 bytes"),
        (png(bytes(65), 64, 1, before=chunk(b"CgBI", bytes(4))), "unknown chunk CgBI"),
        (png(bytes(65), 64, 1, before=chunk(b"IHDR", bytes(13))), "header is not where it belongs"),
        (png(bytes(65), 64, 1, before=b"\0\0\0\4\1\2\3\4" + bytes(8)), "no chunk at byte 33"),
    ],
)
def test_damaged_pngs_are_named(data, reason):
    refused(data, reason)


@pytest.mark.parametrize("kind", [np.float32, np.int32])
def test_a_tiff_that_is_no_photo_says_how_to_save_it(kind):
    file = io.BytesIO()
    Image.fromarray(np.zeros((9, 11), kind)).save(file, "TIFF")
    refused(file.getvalue(), "save it as PNG, or with 8 or 16 bits per channel")


def test_every_flipped_bit_of_a_png_is_noticed():
    """Whatever decoders make of it: in torchvision's some of these ended the process."""
    data = encoded(".png", picture(6, 7))
    for bit in range(8 * len(data)):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(ImageError):
            decode_photo(bytes(damaged))


@pytest.mark.parametrize("suffix", FORMATS)
def test_damaged_files_never_end_the_process(suffix):
    script = Path(__file__).with_name("fuzz_decoding.py")
    command = [sys.executable, str(script), suffix, "1", "300"]
    process = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert process.returncode == 0, process.stderr[-2000:]
    images, _, errors, _ = process.stdout.replace(",", "").split()
    assert min(int(images), int(errors)) > 10  # both ways are gone
