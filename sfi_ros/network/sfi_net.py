"""The single-stage network: one encoder, a foreground mask, and a background seen through it."""

from __future__ import annotations

from torch import Tensor

from sfi_ros.network.mpi import max_pool_inpaint, zero_fill
from sfi_ros.network.outputs import SceneLogits
from sfi_ros.network.preprocessing import pad_to_multiple
from sfi_ros.network.scene_network import SceneNetwork, mask_to_fill


class SFINet(SceneNetwork):
    """Semantic foreground inpainting in one pass (paper, Fig. 2)."""

    def forward(
        self, images: Tensor, given_foreground: Tensor | None = None, fake_foreground: Tensor | None = None
    ) -> SceneLogits:
        """See `SceneNetwork.forward`."""
        self._check(images, given_foreground, fake_foreground)
        height, width = images.shape[-2:]
        image = pad_to_multiple(images, self.decoder.multiple)
        stem, early = self.early(image)
        foreground = self.foreground(image, stem, early)[..., :height, :width]
        mask = mask_to_fill(foreground, given_foreground, fake_foreground)
        mask = pad_to_multiple(mask, self.decoder.multiple)

        position = self.options.mpi_position
        if position == "image":
            early = self.early(self._fill(image, mask))[1]
        elif position == "block2":
            early = self._fill(early, mask)
        late = self.late(early)
        if position == "block4":
            late = tuple(self._fill(features, mask) for features in late)
            if self.decoder.joins_early:  # or the decoder would see past the mask
                early = self._fill(early, mask)
        background = self.decoder(early, late, image.shape[-2:])
        if position == "logits":
            background = self._fill(background, mask)
        return SceneLogits(background[..., :height, :width], foreground)

    def _fill(self, features: Tensor, mask: Tensor) -> Tensor:
        if self.options.fill == "zero":
            return zero_fill(features, mask, boundary=self.options.boundary)
        return max_pool_inpaint(features, mask, boundary=self.options.boundary)
