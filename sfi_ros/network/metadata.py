"""What a file of weights says about itself: a JSON text, the same in checkpoints and in exported files.

Such a text comes from outside. Its values are checked for type and range here, before anything is built from them.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields
from typing import Any, Final, TypeVar

from sfi_ros import __version__
from sfi_ros.classes import BACKGROUND_CLASSES
from sfi_ros.errors import OptionError, SfiError, shown
from sfi_ros.network.image_format import IMAGENET_MEAN, IMAGENET_STD
from sfi_ros.network.options import NetworkOptions
from sfi_ros.options import INPUT_HEIGHTS

FORMAT: Final = 1
"""Newest layout of `Metadata` that this version knows."""

MAX_TEXT: Final = 1 << 20
"""Longest JSON text, in characters; a training configuration has some thousand."""

MAX_DEPTH: Final = 32
"""Most lists and objects within each other."""

_UNPRINTABLE: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
"""Control characters, which terminals obey, and halves of UTF-16 pairs, which nothing can print."""

T = TypeVar("T")


class CheckpointError(SfiError, ValueError):
    """A file that is not usable as weights; the message says which file, what is wrong with it, and the remedy."""


@dataclass(frozen=True)
class Metadata:
    """What a checkpoint knows about itself.

    Attributes:
        name: name of the network in the zoo.
        options: `NetworkOptions` as a dictionary.
        input_height: height in pixels of the images it was trained for; the engine's default.
        training_data: what it was trained on, in words; "" if unknown.
        scores: name of a measure -> finite value.
        extra: anything else worth keeping (training configuration, command line, ...), of types that JSON knows.
        background_classes, mean, std: what its outputs mean and its inputs are normalised with.
        package_version: version of sfi_ros that wrote the file.
        format: version of this layout.

    Raises:
        OptionError: a value of another type or out of its range.
    """

    name: str
    options: dict[str, Any]
    input_height: int = 256
    training_data: str = ""
    scores: dict[str, float] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)
    background_classes: tuple[str, ...] = BACKGROUND_CLASSES
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    package_version: str = __version__
    format: int = FORMAT

    def __post_init__(self) -> None:
        for name in ("name", "training_data", "package_version"):
            require(isinstance(getattr(self, name), str), name, "a text", getattr(self, name))
        for name in ("options", "scores", "extra"):
            require(isinstance(getattr(self, name), Mapping), name, "an object", getattr(self, name))
        require_integer("format", self.format, 1, FORMAT)
        require_integer("input_height", self.input_height, *INPUT_HEIGHTS)
        for name, value in self.scores.items():
            require(_is_finite(value), f"scores[{shown(name)}]", "a finite number", value)
        classes = self.background_classes
        require(
            isinstance(classes, tuple) and classes and all(isinstance(word, str) for word in classes),
            "background_classes",
            "a list of texts",
            classes,
        )
        for name in ("mean", "std"):
            numbers = getattr(self, name)
            is_colour = isinstance(numbers, tuple) and len(numbers) == 3 and all(map(_is_finite, numbers))
            require(is_colour, name, "three finite numbers", numbers)

    @property
    def tells_kinds(self) -> bool:
        """Whether the network tells kinds of objects, `classes.FOREGROUND_CLASSES`."""
        return NetworkOptions.from_dict(self.options).tells_kinds

    def check_supported(self, source: object) -> None:
        """Refuse weights whose classes, normalisation or options are not those of this package.

        Raises:
            CheckpointError: they are others; names `source`, the file.
        """
        try:
            NetworkOptions.from_dict(self.options)
        except OptionError as error:
            raise CheckpointError(f"{source} describes a network that cannot be built: {error}") from error
        if self.background_classes != BACKGROUND_CLASSES:
            raise CheckpointError(
                f"{source} was trained for the classes {shown(', '.join(self.background_classes))}; this package "
                f"publishes {', '.join(BACKGROUND_CLASSES)}"
            )
        if (self.mean, self.std) != (IMAGENET_MEAN, IMAGENET_STD):
            raise CheckpointError(
                f"{source} wants images normalised with {self.mean}, {self.std}; this package normalises with "
                f"{IMAGENET_MEAN}, {IMAGENET_STD}"
            )


def to_json(value: Any) -> str:
    """Return a dataclass such as `Metadata` as the JSON text that `from_json` reads.

    Raises:
        TypeError: it holds what JSON cannot.
    """
    return json.dumps(asdict(value))


def from_json(kind: type[T], text: str, source: object) -> T:
    """Read a dataclass from its JSON text; keys that it does not have are passed over.

    Args:
        kind: a dataclass that checks its own values.
        text: from a file.
        source: the file, for messages.

    Raises:
        CheckpointError: not such a text, or written by a newer version of this package.
    """
    values = _object(text, source)
    if "format" in values and isinstance(values["format"], int) and values["format"] > FORMAT:
        raise CheckpointError(
            f"{source} has format {values['format']}, written by sfi_ros {shown(values.get('package_version'))}; this "
            f"is {__version__}, which knows formats up to {FORMAT}: upgrade it"
        )
    known = {f.name: f for f in fields(kind)}  # type: ignore[arg-type]
    missing = [name for name, f in known.items() if name not in values and f.default is f.default_factory is MISSING]
    if missing:
        raise CheckpointError(f"the metadata of {source} is damaged: it lacks {', '.join(missing)}")
    arguments = {name: tuple(v) if isinstance(v, list) else v for name, v in values.items() if name in known}
    try:
        return kind(**arguments)
    except OptionError as error:
        raise CheckpointError(f"the metadata of {source} is damaged: {error}") from error


def require(is_right: object, name: str, what: str, value: object) -> None:
    """Raise an `OptionError` that says what `name` must be and what it is, unless `is_right`."""
    if not is_right:
        raise OptionError(f"{name} must be {what}; got {shown(value)}")


def require_integer(name: str, value: object, smallest: int, largest: int) -> None:
    """Raise an `OptionError` unless `value` is an integer (no bool) within the limits, both included."""
    is_integer = isinstance(value, int) and not isinstance(value, bool)
    require(is_integer and smallest <= value <= largest, name, f"an integer within {smallest}..{largest}", value)  # type: ignore[operator]


def _object(text: str, source: object) -> dict[str, Any]:
    damaged = f"the metadata of {source} is damaged"
    if len(text) > MAX_TEXT:
        raise CheckpointError(f"{damaged}: {len(text)} characters, more than {MAX_TEXT}")
    try:
        values = json.loads(text, object_pairs_hook=_unique, parse_constant=str)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{damaged}: {shown(str(error))}") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{damaged}: it is not an object but {shown(values)}")
    if problem := _problem_within(values):
        raise CheckpointError(f"{damaged}: {problem}")
    return values


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        raise ValueError("a key stands in it twice")
    return values


def _problem_within(values: Any) -> str | None:
    level = [values]
    for _ in range(MAX_DEPTH):
        for value in level:
            texts = value if isinstance(value, dict) else (value,)
            if any(isinstance(text, str) and _UNPRINTABLE.search(text) for text in texts):
                return "a text in it has characters that cannot be printed"
        level = [
            child
            for value in level
            if isinstance(value, dict | list)
            for child in (value.values() if isinstance(value, dict) else value)
        ]
        if not level:
            return None
    return f"more than {MAX_DEPTH} lists and objects within each other"


def _is_finite(value: object) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and abs(value) <= sys.float_info.max  # type: ignore[arg-type]  # compares integers of any size
