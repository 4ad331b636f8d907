"""The two-stage baseline of Schulter et al. (ECCV 2018), as the paper compares with it.

First a network finds the foreground; then the *image* is blacked out there and a segmentation network (PSPNet)
guesses what stands behind the hole. Nothing is shared between the stages.
"""

from __future__ import annotations

from torch import Tensor

from sfi_ros.network.scene_network import SceneNetwork


class TwoStageNet(SceneNetwork):
    """Foreground branch, hole in the image, PSPNet. The options `mpi_position` and `fill` are "image" and "zero"."""

    def see(self, image: Tensor) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """See `SceneNetwork.see`."""
        size = image.shape[-2:]
        image = self.border.pad(image)
        return (image,), tuple(self.border.crop(logits, size) for logits in self.foreground(image, image, image))

    def inpaint(self, features: tuple[Tensor, ...], mask: Tensor) -> Tensor:
        """See `SceneNetwork.inpaint`. Zero, the colour of the hole, is the mean colour of normalised images."""
        (image,) = features
        hole = self.border.pad(mask).to(image.dtype)  # the mean of several views is float32
        early = self.early(image * (1 - hole))[1]
        background = self.decoder(early, self.late(early), image.shape[-2:])
        return self.border.crop(background, mask.shape[-2:])
