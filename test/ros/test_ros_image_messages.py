"""Image messages: every encoding against a reference conversion, and every way they can be wrong."""

from __future__ import annotations

import array
import struct
import zlib
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("sensor_msgs", reason="ROS messages are not installed (pip install sfi_ros[ros])")

from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from sfi_ros.frames.encodings import ENCODINGS, ImageError, to_rgb, used_bits, view
from sfi_ros.ros.image_messages import compressed_message, image_message, rgb_of

HEIGHT, WIDTH = 12, 16


@pytest.fixture
def picture():
    """Smooth, so that formats which share colour between pixels lose little."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    return np.stack([60 + x * 8, 200 - y * 9, 90 + x * 2 + y * 3], axis=-1).astype(np.uint8)


def message(
    encoding: str, pixels: np.ndarray, *, padding: int = 0, big_endian: bool = False, rows_per_row=1.0
) -> Image:
    """Rows of bytes with padding behind each, as drivers for aligned memory send them."""
    rows = np.ascontiguousarray(pixels).view(np.uint8).reshape(pixels.shape[0], -1)
    padded = np.pad(rows, ((0, 0), (0, padding)), constant_values=77)
    result = Image(encoding=encoding, is_bigendian=int(big_endian))
    result.height, result.width = int(pixels.shape[0] / rows_per_row), pixels.shape[1]
    result.step = padded.shape[1]
    result.data = array.array("B", padded.tobytes())
    return result


def ycbcr(picture: np.ndarray) -> np.ndarray:
    """BT.601 in the studio range, written out: what cameras mean by YUV."""
    r, g, b = (picture[..., i].astype(float) for i in range(3))
    y = 16 + (65.481 * r + 128.553 * g + 24.966 * b) / 255
    cb = 128 + (-37.797 * r - 74.203 * g + 112.0 * b) / 255
    cr = 128 + (112.0 * r - 93.786 * g - 18.214 * b) / 255
    return np.stack([y, cb, cr], axis=-1).round().clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("padding", [0, 5])
@pytest.mark.parametrize(
    ("encoding", "channels"),
    [
        ("rgb8", (0, 1, 2)),
        ("bgr8", (2, 1, 0)),
        ("8UC3", (2, 1, 0)),
        ("rgba8", (0, 1, 2, 0)),
        ("bgra8", (2, 1, 0, 0)),
        ("8UC4", (2, 1, 0, 0)),
    ],
)
def test_interleaved(picture, encoding, channels, padding):
    sent = message(encoding, picture[..., channels], padding=padding)
    np.testing.assert_array_equal(rgb_of(sent), picture)
    np.testing.assert_array_equal(view(sent), picture[..., channels])


@pytest.mark.parametrize("encoding", ["rgb8", "bgr8", "rgba8", "bgra8", "mono8"])
@pytest.mark.parametrize("padding", [0, 5])
def test_views_are_the_message_itself(encoding, padding):
    channels = {"mono8": 1, "rgb8": 3, "bgr8": 3}.get(encoding, 4)
    sent = message(encoding, np.zeros((HEIGHT, WIDTH, channels), np.uint8), padding=padding)
    pixels = view(sent)
    sent.data[2 * sent.step] = 200
    assert pixels[2, 0].max() == 200
    assert np.shares_memory(pixels, np.frombuffer(sent.data, np.uint8))


@pytest.mark.parametrize("encoding", ["mono8", "8UC1"])
def test_gray(picture, encoding):
    np.testing.assert_array_equal(rgb_of(message(encoding, picture[..., 0], padding=3)), picture[..., [0, 0, 0]])


@pytest.mark.parametrize("big_endian", [False, True])
@pytest.mark.parametrize(
    ("encoding", "channels"),
    [
        ("mono16", None),
        ("16UC1", None),
        ("rgb16", (0, 1, 2)),
        ("bgr16", (2, 1, 0)),
        ("16UC3", (2, 1, 0)),
        ("rgba16", (0, 1, 2, 0)),
        ("bgra16", (2, 1, 0, 0)),
        ("16UC4", (2, 1, 0, 0)),
    ],
)
def test_sixteen_bits_keep_the_upper_eight(picture, encoding, channels, big_endian):
    pixels = picture[..., 0] if channels is None else picture[..., channels]
    deep = (pixels.astype(np.uint16) * 256 + 99).astype(">u2" if big_endian else "<u2")
    expected = picture[..., [0, 0, 0]] if channels is None else picture
    np.testing.assert_array_equal(rgb_of(message(encoding, deep, padding=2, big_endian=big_endian)), expected)


SIXTEEN_BITS = [encoding for encoding in ENCODINGS if "16" in encoding]


def channels_of(encoding: str) -> int:
    if encoding.startswith("16UC"):
        return int(encoding[-1])
    return {"rgb16": 3, "bgr16": 3, "rgba16": 4, "bgra16": 4}.get(encoding, 1)


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("big_endian", [False, True])
@pytest.mark.parametrize("encoding", SIXTEEN_BITS)
def test_bits_at_the_low_end_of_sixteen(encoding, big_endian, bits):
    """A camera of fewer bits that leaves the upper ones empty gives the picture that it would give shifted up."""
    channels = (
        4 if "a16" in encoding or encoding.endswith("C4") else 3 if encoding.endswith(("b16", "r16", "C3")) else 1
    )
    values = np.random.default_rng(bits).integers(0, 2**bits, (HEIGHT, WIDTH, channels), np.uint16)
    values[0, 0] = 2**bits - 1
    order = ">u2" if big_endian else "<u2"
    low = message(encoding, values.astype(order), padding=2, big_endian=big_endian)
    high = message(encoding, (values << (16 - bits)).astype(order), padding=2, big_endian=big_endian)
    np.testing.assert_array_equal(to_rgb(low, significant_bits=bits), to_rgb(high))
    np.testing.assert_array_equal(rgb_of(low, significant_bits=bits), to_rgb(high))
    assert used_bits(low) == bits
    assert used_bits(high) == 16


@pytest.mark.parametrize("encoding", SIXTEEN_BITS)
def test_values_beyond_the_significant_bits_are_white(encoding):
    channels = (
        4 if "a16" in encoding or encoding.endswith("C4") else 3 if encoding.endswith(("b16", "r16", "C3")) else 1
    )
    bright = message(encoding, np.full((HEIGHT, WIDTH, channels), 5000, "<u2"))
    assert to_rgb(bright, significant_bits=12).min() == 255


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("channels", [1, 3])
def test_bits_at_the_low_end_of_a_png(bits, channels):
    values = np.random.default_rng(bits).integers(0, 2**bits, (HEIGHT, WIDTH, channels), np.uint16)
    values[:2] = 2**bits - 1

    def png16(pixels):
        return CompressedImage(format="png", data=array.array("B", cv2.imencode(".png", pixels)[1].tobytes()))

    low, high = png16(values), png16(values << (16 - bits))
    np.testing.assert_array_equal(rgb_of(low, significant_bits=bits), rgb_of(high))
    np.testing.assert_array_equal(
        rgb_of(high), (values >> max(bits - 8, 0)).astype(np.uint8)[..., ::-1] * np.ones(3, np.uint8)
    )
    assert used_bits(low) == bits
    assert used_bits(high) == 16


def test_eight_bits_of_a_file_are_all_significant(picture):
    sent = compressed_message(cv2.resize(picture, (64, 48)), Header())
    np.testing.assert_array_equal(rgb_of(sent, significant_bits=12), rgb_of(sent))
    assert used_bits(sent) is None


def test_used_bits():
    assert used_bits(message("rgb8", np.full((HEIGHT, WIDTH, 3), 255, np.uint8))) is None
    assert used_bits(message("mono16", np.zeros((HEIGHT, WIDTH), np.uint16))) == 0
    dark = np.full((700, 500), 900, np.uint16)
    dark[:7, :10] = 65535  # hot pixels
    assert used_bits(message("mono16", dark)) == 10
    opaque = np.full((HEIGHT, WIDTH, 4), 900, np.uint16)
    opaque[..., 3] = 65535
    assert used_bits(message("rgba16", opaque)) == 10
    with pytest.raises(ImageError, match="step"):
        used_bits(broken(encoding="mono16", step=3))


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("pattern", ["rggb", "bggr", "gbrg", "grbg"])
def test_bayer(pattern, bits):
    color = np.array([200, 120, 40], np.uint8)
    mosaic = np.empty((HEIGHT, WIDTH), np.uint8)
    for place, letter in enumerate(pattern):
        mosaic[place // 2 :: 2, place % 2 :: 2] = color["rgb".index(letter)]
    if bits == 16:
        mosaic = mosaic.astype(np.uint16) * 256
    decoded = rgb_of(message(f"bayer_{pattern}{bits}", mosaic, padding=4))
    np.testing.assert_array_equal(decoded, np.broadcast_to(color, (HEIGHT, WIDTH, 3)))


@pytest.mark.parametrize(("encoding", "luma_at"), [("yuv422", 1), ("uyvy", 1), ("yuv422_yuy2", 0), ("yuyv", 0)])
def test_yuv_422(picture, encoding, luma_at):
    yuv = ycbcr(picture)
    packed = np.empty((HEIGHT, WIDTH, 2), np.uint8)
    packed[..., luma_at] = yuv[..., 0]
    packed[:, 0::2, 1 - luma_at] = yuv[:, 0::2, 1]
    packed[:, 1::2, 1 - luma_at] = yuv[:, 0::2, 2]
    decoded = rgb_of(message(encoding, packed, padding=6)).astype(int)
    assert np.abs(decoded - picture).max() <= 14  # a step of the gradient, doubled: colour is shared by two pixels


@pytest.mark.parametrize(("encoding", "first"), [("nv12", 1), ("nv21", 2)])
def test_yuv_420(picture, encoding, first):
    yuv = ycbcr(picture)
    memory = np.empty((HEIGHT * 3 // 2, WIDTH), np.uint8)
    memory[:HEIGHT] = yuv[..., 0]
    memory[HEIGHT:, 0::2] = yuv[0::2, 0::2, first]
    memory[HEIGHT:, 1::2] = yuv[0::2, 0::2, 3 - first]
    decoded = rgb_of(message(encoding, memory, padding=8, rows_per_row=1.5)).astype(int)
    assert np.abs(decoded - picture).max() <= 20


def test_every_encoding_was_tried_above():
    tried = ["rgb8", "bgr8", "8UC3", "rgba8", "bgra8", "8UC4", "mono8", "8UC1", "mono16", "16UC1"]
    tried += ["rgb16", "bgr16", "16UC3", "rgba16", "bgra16", "16UC4"]
    tried += ["yuv422", "uyvy", "yuv422_yuy2", "yuyv", "nv12", "nv21"]
    tried += [f"bayer_{pattern}{bits}" for pattern in ("rggb", "bggr", "gbrg", "grbg") for bits in (8, 16)]
    assert sorted(tried) == sorted(ENCODINGS)


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_compressed(picture, suffix):
    big = cv2.resize(picture, (64, 48))
    _, data = cv2.imencode(suffix, cv2.cvtColor(big, cv2.COLOR_RGB2BGR))
    decoded = rgb_of(CompressedImage(format="whatever", data=array.array("B", data.tobytes()))).astype(int)
    assert np.abs(decoded - big).max() <= (0 if suffix == ".png" else 12)


def test_compressed_round_trip(picture):
    big = cv2.resize(picture, (64, 48))
    assert np.abs(rgb_of(compressed_message(big, Header())).astype(int) - big).max() <= 12


def broken(**fields) -> SimpleNamespace:
    good = {"encoding": "rgb8", "height": 4, "width": 6, "step": 18, "is_bigendian": 0, "data": bytes(72)}
    return SimpleNamespace(**{**good, **fields})


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"data": bytes(71)}, "needs 72 bytes of data; it has 71"),
        ({"data": bytes(80)}, "it has 80"),
        ({"data": b""}, "it has 0"),
        ({"step": 17, "data": bytes(68)}, "step 17, but a row of it needs 18"),
        ({"step": 0}, "step 0"),
        ({"height": 0, "data": b""}, "no pixels"),
        ({"width": 0}, "no pixels"),
        ({"encoding": "32FC1"}, "unknown encoding '32FC1'"),
        ({"encoding": ""}, "unknown encoding ''"),
        ({"encoding": "jpeg"}, "known are rgb8"),
        ({"width": 7680, "height": 4320}, "limit of 24 megapixels"),
        ({"width": 2**32 - 1, "height": 2**32 - 1}, "limit"),
        ({"encoding": "yuyv", "width": 5, "step": 10, "data": bytes(40)}, "even"),
        ({"encoding": "nv12", "height": 3, "step": 6, "data": bytes(27)}, "even"),
    ],
)
def test_malformed_images_are_named(fields, reason):
    with pytest.raises(ImageError) as caught:
        to_rgb(broken(**fields))
    assert reason in str(caught.value)


def jpeg(width: int = 64, height: int = 48) -> bytes:
    rng = np.random.default_rng(0)
    return cv2.imencode(".jpg", rng.integers(0, 255, (height, width, 3), np.uint8))[1].tobytes()


def png() -> bytes:
    return cv2.imencode(".png", np.zeros((48, 64, 3), np.uint8))[1].tobytes()


def png_of(width: int, height: int) -> bytes:
    """A header that promises a picture which would need more memory than there is."""
    data = bytearray(png())
    data[16:24] = struct.pack(">II", width, height)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    return bytes(data)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "is empty"),
        (b"GIF89a..........", "starts with 47 49 46 38"),
        (jpeg()[:-200], "truncated"),
        (jpeg()[:5], "truncated"),
        (jpeg()[:30] + b"\xff\xd9", "truncated"),
        (jpeg()[:20] + b"\xff\xd9", "no frame header"),
        (png()[:-20], "truncated"),
        (png()[:12], "truncated"),
        (png_of(60000, 60000), "limit of 24 megapixels"),
        (b"\xff\xd8\xff" + bytes(100) + b"\xff\xd9", "damaged"),
    ],
)
def test_malformed_compressed_images_are_named(data, reason):
    with pytest.raises(ImageError) as caught:
        rgb_of(CompressedImage(format="jpeg", data=array.array("B", data)))
    assert reason in str(caught.value)


def test_padding_behind_a_jpeg_is_no_damage():
    assert rgb_of(CompressedImage(data=array.array("B", jpeg() + bytes(1000)))).shape == (48, 64, 3)


@given(
    encoding=st.sampled_from([*ENCODINGS, "", "rgb9"]),
    size=st.tuples(st.integers(0, 40), st.integers(0, 40)),
    step=st.integers(0, 400),
    data=st.binary(max_size=4000),
    big_endian=st.booleans(),
)
def test_whatever_comes_is_an_image_or_an_image_error(encoding, size, step, data, big_endian):
    sent = broken(encoding=encoding, height=size[0], width=size[1], step=step, data=data, is_bigendian=big_endian)
    for attempt in (data, data.ljust(step * size[0], b"x")[: step * size[0]]):  # mostly wrong; often right
        sent.data = attempt
        try:
            image = to_rgb(sent)
        except ImageError:
            continue
        assert image.shape == (*size, 3)
        assert image.dtype == np.uint8


@given(
    cut=st.integers(0, 3000),
    where=st.integers(0, 3000),
    value=st.integers(0, 255),
    kind=st.sampled_from([jpeg, png]),
)
def test_whatever_a_file_becomes_is_an_image_or_an_image_error(cut, where, value, kind):
    data = bytearray(kind())
    data[where % len(data)] = value
    sent = SimpleNamespace(format="", data=bytes(data[: len(data) - cut % len(data)]) if cut % 2 else bytes(data))
    try:
        image = rgb_of_plain(sent)
    except ImageError:
        return
    assert image.ndim == 3


def rgb_of_plain(sent):
    from sfi_ros.frames.encodings import decode_compressed

    return decode_compressed(sent, max_megapixels=1)


@pytest.mark.parametrize("encoding", ["mono8", "rgb8", "bgr8"])
def test_outgoing_messages_come_back(picture, encoding):
    pixels = picture[..., 0] if encoding == "mono8" else picture
    header = Header(frame_id="front")
    header.stamp.sec = 7
    sent = image_message(pixels[:, ::2], encoding, header)  # not contiguous
    np.testing.assert_array_equal(view(sent), pixels[:, ::2])
    assert (sent.header.frame_id, sent.header.stamp.sec, sent.step) == ("front", 7, len(sent.data) // sent.height)


@pytest.mark.parametrize(
    ("shape", "dtype", "encoding"),
    [((4, 4, 3), np.uint8, "mono8"), ((4, 4), np.uint8, "rgb8"), ((4, 4, 3), float, "rgb8"), ((4, 4), np.uint8, "x")],
)
def test_outgoing_pixels_must_fit(shape, dtype, encoding):
    with pytest.raises(ValueError, match="known are mono8"):
        image_message(np.zeros(shape, dtype), encoding, Header())


def test_cv_bridge_is_asked_where_it_is_installed():
    pytest.importorskip("cv_bridge", reason="cv_bridge is not installed: not on PyPI")
    message = image_message(np.zeros((4, 6, 3), np.uint8), "rgb8", Header())
    message.encoding = "32FC1"
    message.step, message.data = 24, array.array("B", bytes(96))
    with pytest.raises(ImageError, match="cv_bridge cannot convert it"):
        rgb_of(message)
