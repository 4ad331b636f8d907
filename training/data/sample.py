"""The one sample type that every dataset yields, and the batch that samples are collated into.

A sample says what the camera saw (`image`), where the movable objects are (`foreground`), what a weakly
supervised network is told about the background (`partial_background`) and, where somebody or something knows
it, what really lies behind the objects (`true_background`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from typing_extensions import Self


@dataclass
class Sample:
    """One labelled image at network resolution (H, W).

    Attributes:
        image: (3, H, W) uint8 RGB.
        foreground: (H, W) uint8, 1 on movable objects, else 0.
        kinds: (H, W) uint8, index into `classes.FOREGROUND_CLASSES` on movable objects whose kind is known, else 255.
        partial_background: (H, W) uint8, 0 road, 1 sidewalk, 2 other, 255 under foreground and where
            unlabeled.
        true_background: (H, W) uint8 with the same values, known under (some) objects too; None where the
            dataset has nothing beyond the partial background.
        categories: (H, W) uint8 raw label ids of the dataset, for scores by object category.
        name: stable identifier for error messages and reports.
    """

    image: Tensor
    foreground: Tensor
    kinds: Tensor
    partial_background: Tensor
    true_background: Tensor | None
    categories: Tensor
    name: str


class Tensors:
    """A dataclass of tensors, of others of its kind, and of what has no place on a device."""

    def map(self, function: Callable[[Tensor], Tensor]) -> Self:
        """Return the same with every tensor replaced by `function` of it."""
        return replace(self, **{field.name: _mapped(getattr(self, field.name), function) for field in fields(self)})

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Self:
        """Return the same with all tensors on `device`."""
        return self.map(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Self:
        """Return the same in page-locked memory; `DataLoader(pin_memory=True)` calls this for a GPU."""
        return self.map(Tensor.pin_memory)


def _mapped(value: Any, function: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, Tensors):
        return value.map(function)
    return {name: _mapped(entry, function) for name, entry in value.items()} if isinstance(value, dict) else value


@dataclass
class Batch(Tensors):
    """Samples of one size, stacked: as in `Sample`, with a leading dimension N; `names` has N entries.

    `true_background` is None only when no sample had one.
    """

    image: Tensor
    foreground: Tensor
    kinds: Tensor
    partial_background: Tensor
    true_background: Tensor | None
    categories: Tensor
    names: list[str]

    def __len__(self) -> int:
        return len(self.names)

    @property
    def truth(self) -> Tensor:
        """(N, H, W) uint8: the best known background, the true one if there is one, else the partial one."""
        return self.partial_background if self.true_background is None else self.true_background


def collate(samples: Sequence[Sample]) -> Batch:
    """Stack samples of equal size into a `Batch`; pass it to `DataLoader(collate_fn=collate)`.

    A sample without true background that shares a batch with others that have one contributes its partial
    background: that is all that is known about it.

    Raises:
        ValueError: the samples differ in size, or there are none.
    """
    if not samples:
        raise ValueError("collate() got no samples: give at least one")
    sizes = {tuple(sample.image.shape[-2:]) for sample in samples}
    if len(sizes) > 1:
        listed = ", ".join(f"{s.name} {s.image.shape[-2]}x{s.image.shape[-1]}" for s in samples[:4])
        raise ValueError(f"images of one batch differ in size ({listed}): crop them to one size, or group them by size")
    truth = None
    if any(sample.true_background is not None for sample in samples):
        truth = torch.stack([s.partial_background if s.true_background is None else s.true_background for s in samples])
    return Batch(
        image=torch.stack([s.image for s in samples]),
        foreground=torch.stack([s.foreground for s in samples]),
        kinds=torch.stack([s.kinds for s in samples]),
        partial_background=torch.stack([s.partial_background for s in samples]),
        true_background=truth,
        categories=torch.stack([s.categories for s in samples]),
        names=[s.name for s in samples],
    )
