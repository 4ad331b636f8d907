"""The two-stage baseline of Schulter et al. (ECCV 2018), as the paper compares with it.

First a network finds the foreground; then the *image* is blacked out there and a segmentation network (PSPNet)
guesses what stands behind the hole. Nothing is shared between the stages.
"""

from __future__ import annotations

from torch import Tensor

from sfi_ros.network.outputs import SceneLogits
from sfi_ros.network.preprocessing import pad_to_multiple
from sfi_ros.network.scene_network import SceneNetwork, mask_to_fill


class TwoStageNet(SceneNetwork):
    """Foreground branch, hole in the image, PSPNet. The options `mpi_position` and `fill` are "image" and "zero"."""

    def forward(
        self, images: Tensor, given_foreground: Tensor | None = None, fake_foreground: Tensor | None = None
    ) -> SceneLogits:
        """See `SceneNetwork.forward`. Zero, the colour of the hole, is the mean colour of normalised images."""
        self._check(images, given_foreground, fake_foreground)
        height, width = images.shape[-2:]
        image = pad_to_multiple(images, self.decoder.multiple)
        foreground = self.foreground(image, image, image)[..., :height, :width]
        mask = mask_to_fill(foreground, given_foreground, fake_foreground)
        holed = image * (1 - pad_to_multiple(mask, self.decoder.multiple))
        early = self.early(holed)[1]
        background = self.decoder(early, self.late(early), image.shape[-2:])
        return SceneLogits(background[..., :height, :width], foreground)
