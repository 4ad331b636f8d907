"""The two-stage baseline of Schulter et al. (ECCV 2018), as the paper compares with it.

First a network finds the foreground; then the *image* is blacked out there and a segmentation network (PSPNet)
guesses what stands behind the hole. Nothing is shared between the stages.
"""

from __future__ import annotations

from torch import Tensor

from sfi_ros.network.outputs import SceneLogits
from sfi_ros.network.scene_network import SceneNetwork, mask_to_fill


class TwoStageNet(SceneNetwork):
    """Foreground branch, hole in the image, PSPNet. The options `mpi_position` and `fill` are "image" and "zero"."""

    def forward(
        self, images: Tensor, given_foreground: Tensor | None = None, fake_foreground: Tensor | None = None
    ) -> SceneLogits:
        """See `SceneNetwork.forward`. Zero, the colour of the hole, is the mean colour of normalised images."""
        self._check(images, given_foreground, fake_foreground)
        size = images.shape[-2:]
        image = self.border.pad(images)
        foreground, *kinds = (self.border.crop(planes, size) for planes in self.foreground(image, image, image))
        mask = self.border.pad(mask_to_fill(foreground, given_foreground, fake_foreground))
        early = self.early(image * (1 - mask))[1]
        background = self.decoder(early, self.late(early), image.shape[-2:])
        return SceneLogits(self.border.crop(background, size), foreground, *kinds)
