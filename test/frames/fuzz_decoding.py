"""Decode damaged files with a limit on memory: python fuzz_decoding.py SUFFIX SEED COUNT.

Ends with status 0 if each was an image or an `ImageError`. A process of its own, because what is looked for are crashes
of native decoders.
"""

from __future__ import annotations

import random
import resource
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np

if not __package__:
    sys.path.insert(0, str(Path(__file__).parent))

from image_files import good_files, mutated, recompressed, with_right_checksums

from sfi_ros.errors import ImageError
from sfi_ros.frames.decoding import decode_labels, decode_photo

MEGAPIXELS = 8
MEMORY = 400 * 2**20  # more than it takes to decode 8 megapixels, less than any announced gigabyte


def main(suffix: str, seed: int, count: int) -> None:
    """Print how many files were images and how many errors."""
    files, chance = good_files(suffix), random.Random(seed)
    for file in files:
        decode_photo(file)
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY, size + MEMORY))
    images = errors = 0
    for _ in range(count):
        data = damaged(files, suffix, chance)
        try:
            image = decode_photo(data, MEGAPIXELS)
            assert image.dtype == np.uint8
            assert image.ndim == 3
            assert image.shape[2] == 3
            images += 1
        except ImageError:
            errors += 1
        with suppress(ImageError):
            assert decode_labels(data, MEGAPIXELS).ndim == 2
    print(f"{images} images, {errors} errors")


def damaged(files: list[bytes], suffix: str, chance: random.Random) -> bytes:
    """One of the files, with something wrong."""
    data = chance.choice(files)
    if suffix == ".png" and chance.random() < 0.3:
        return recompressed(data, chance)
    data = mutated(data, chance, files)
    if suffix == ".png" and chance.random() < 0.7:
        return with_right_checksums(data)
    return data + b"\xff\xd9" if suffix == ".jpg" and chance.random() < 0.5 else data  # no truncation to be seen


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
