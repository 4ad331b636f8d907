"""What may vary within one architecture. Exported files name these options, too, so PyTorch is not imported here."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any, Final, Literal, get_args

from sfi_ros.classes import FOREGROUND_CLASSES
from sfi_ros.errors import OptionError, shown

Boundary = Literal["dilated", "raw"]
BOUNDARIES: Final[tuple[Boundary, ...]] = get_args(Boundary)
MpiPosition = Literal["image", "block2", "block4", "logits"]
Fill = Literal["mpi", "zero"]
MaskSource = Literal["predicted", "given"]
VIEW_COUNTS: Final = (1, 2, 4)


@dataclass(frozen=True)
class NetworkOptions:
    """What may vary within one architecture.

    Attributes:
        mpi_position: where the foreground is filled: in the image, behind block 2 (the paper's choice), behind
            block 4, or in the logits (paper, Table III).
        fill: "mpi", or "zero" for naive blacking out (paper, Table IV).
        mask_source: "predicted", or "given": every call must then bring a mask.
        foreground_classes: 1: whether something is a movable object; 3: which of `classes.FOREGROUND_CLASSES` it is,
            too. What is filled is the same: their union.
        views: how many views of the image are averaged, except in training. 1: the image; 2: its mirror image, too; 4:
            both at two thirds of the size, too. See `network.views`.
        boundary: "dilated" as in the paper, or "raw" as in the released code; see `mpi.max_pool_inpaint`.

    Raises:
        OptionError: a value that is not one of these.
    """

    mpi_position: MpiPosition = "block2"
    fill: Fill = "mpi"
    mask_source: MaskSource = "predicted"
    foreground_classes: int = 1
    views: int = 1
    boundary: Boundary = "dilated"

    def __post_init__(self) -> None:
        allowed: dict[str, tuple[str, ...]] = {
            "mpi_position": get_args(MpiPosition),
            "fill": get_args(Fill),
            "mask_source": get_args(MaskSource),
            "boundary": BOUNDARIES,
        }
        for name, values in allowed.items():
            if getattr(self, name) not in values:
                raise OptionError(f"{name} must be one of {', '.join(values)}; got {shown(repr(getattr(self, name)))}")
        count, kinds = self.foreground_classes, len(FOREGROUND_CLASSES)
        if type(count) is not int or count not in (1, kinds):
            raise OptionError(
                f"foreground_classes must be 1, or {kinds} ({', '.join(FOREGROUND_CLASSES)}); got {shown(repr(count))}"
            )
        if type(self.views) is not int or self.views not in VIEW_COUNTS:
            raise OptionError(f"views must be 1, 2 or 4; got {shown(repr(self.views))}")

    @property
    def tells_kinds(self) -> bool:
        """Whether it is told which kind of object the foreground is."""
        return self.foreground_classes > 1

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> NetworkOptions:
        """Build from a dictionary, such as a checkpoint's metadata; unknown names are an OptionError."""
        known = [field.name for field in fields(cls)]
        unknown = ", ".join(sorted(str(name) for name in values if name not in known))
        if unknown:
            raise OptionError(f"unknown network options {shown(unknown)}; known are {', '.join(known)}")
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """All options by name, of types that JSON knows."""
        return asdict(self)
