"""Image files to pixels: the one place where the bytes of a PNG, JPEG, ... are decoded.

`sfi run`, the node, bags and training all decode here, so a file has the same pixels everywhere. Needs NumPy, OpenCV
and Pillow only.

Native decoders fill in what is missing and allocate what a header announces. So OpenCV's get to see a file only after
its structure was checked: the size is known and within the limit, every length stays within the data, and checksums are
right.
"""

from __future__ import annotations

from typing import Final, TypeAlias

import cv2
import numpy as np

from sfi_ros.errors import ImageError
from sfi_ros.frames.formats import bmp, jpeg, netpbm, png, tiff, webp
from sfi_ros.frames.formats.image_file import ImageFile
from sfi_ros.frames.limits import MAX_MEGAPIXELS, MAX_SIGNIFICANT_BITS, check_size

Buffer: TypeAlias = "bytes | bytearray | memoryview | np.ndarray"

ACCEPTED: Final = "PNG, JPEG, BMP, TIFF, WebP and PGM/PPM"

_DEEP: Final = cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH
_FORMATS: Final = (png, jpeg, webp, bmp, tiff, netpbm)
_GIT_LFS: Final = b"version https://git-lfs.github.com/spec/"


class NotLabelsError(ImageError):
    """An image in good order that does not hold label ids."""


def decode_photo(
    data: Buffer, max_megapixels: float = MAX_MEGAPIXELS, significant_bits: int = MAX_SIGNIFICANT_BITS
) -> np.ndarray:
    """Decode a photo to 8-bit RGB.

    Grey images become RGB, 16-bit images keep their upper eight bits, transparency is dropped, and photos are turned
    upright if their EXIF tag says so.

    Args:
        data: a whole PNG, JPEG, BMP, TIFF, WebP, PGM or PPM file.
        max_megapixels: larger images are refused before they are decoded.
        significant_bits: see `upper_eight_bits`.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        ImageError: another format, a truncated or damaged file, or one that is too large.
    """
    image = _checked(data, max_megapixels)
    flags = cv2.IMREAD_COLOR if significant_bits == MAX_SIGNIFICANT_BITS else _DEEP
    pixels = upper_eight_bits(_decoded(image, flags), significant_bits)
    return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB, dst=pixels)


def decode_deep_photo(data: Buffer, max_megapixels: float = MAX_MEGAPIXELS) -> np.ndarray:
    """Decode a photo with as many bits as it has: (H, W, 3) BGR, uint8 or uint16; see `decode_photo`."""
    return _decoded(_checked(data, max_megapixels), _DEEP)


def upper_eight_bits(pixels: np.ndarray, significant_bits: int) -> np.ndarray:
    """Reduce 16-bit values to uint8; 8-bit values are returned as they are.

    Args:
        pixels: uint8 or uint16, any shape and byte order.
        significant_bits: bits that a value really has, counted from the low end, 8 to 16; a 12-bit camera that does not
            shift its values has 12. The upper eight of them are kept; larger values are white.
    """
    if pixels.dtype.itemsize == 1:
        return pixels
    shifted = pixels >> (significant_bits - 8)
    if significant_bits < MAX_SIGNIFICANT_BITS:
        np.minimum(shifted, 255, out=shifted)
    return shifted.astype(np.uint8)


def decode_labels(data: Buffer, max_megapixels: float = MAX_MEGAPIXELS) -> np.ndarray:
    """Decode a label image, whose grey values are ids.

    Grey values of fewer than 8 bits are scaled to 0 to 255 as PNG defines it: programs that shrink files without loss
    leave such files behind.

    Args:
        data: a whole PNG file.
        max_megapixels: larger images are refused before they are decoded.

    Returns:
        (H, W) uint8.

    Raises:
        NotLabelsError: not a PNG of a single 8-bit channel.
        ImageError: truncated, damaged, or too large.
    """
    image = _checked(data, max_megapixels)
    if not isinstance(image, png.Png):
        raise NotLabelsError(f"a label image is a PNG, this one is a {image.kind}: save the ids as a grey 8-bit PNG")
    if image.channels != 1:
        raise NotLabelsError(
            f"a label image has one channel of ids, this one has {image.channels}: "
            "it may be a coloured or palette picture; save the ids as a grey 8-bit PNG"
        )
    if image.depth > 8:
        raise NotLabelsError(f"a label image has 8-bit ids, this one has {image.depth} bits: save it as 8 bit")
    return _decoded(image, cv2.IMREAD_GRAYSCALE | cv2.IMREAD_IGNORE_ORIENTATION)


def is_git_lfs_pointer(data: bytes) -> bool:
    """Whether a file begins as what Git LFS leaves in place of a large one that was not fetched."""
    return data.startswith(_GIT_LFS)


def _checked(data: Buffer, max_megapixels: float) -> ImageFile:
    data = bytes(data)
    for kind in _FORMATS:
        if kind.recognises(data):
            image: ImageFile = kind.check(data)
            check_size(image.width, image.height, _named(image), max_megapixels)
            return image
    if not data:
        raise ImageError("it is empty")
    if is_git_lfs_pointer(data):
        raise ImageError("it is a Git LFS pointer, not the image itself: run `git lfs pull`")
    raise ImageError(f"it starts with {data[:4].hex(' ')}, which is no image format; accepted are {ACCEPTED}")


def _decoded(image: ImageFile, flags: int) -> np.ndarray:
    try:
        pixels = image.decode(flags)
    except cv2.error as error:
        raise ImageError(f"{_named(image)} is damaged: {error.err}") from error
    if pixels is None:
        raise ImageError(f"{_named(image)} is damaged")
    if sorted(pixels.shape[:2]) != sorted((image.height, image.width)):  # an EXIF tag may swap the sides
        decoded = f"{pixels.shape[1]}x{pixels.shape[0]}"
        raise ImageError(f"{_named(image)} is damaged: decoded it is {decoded}")
    return pixels


def _named(image: ImageFile) -> str:
    return f"{image.kind} of {image.width}x{image.height}"
