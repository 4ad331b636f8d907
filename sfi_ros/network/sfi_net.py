"""The single-stage network: one encoder, a foreground mask, and a background seen through it."""

from __future__ import annotations

from torch import Tensor

from sfi_ros.network.outputs import SceneLogits
from sfi_ros.network.scene_network import SceneNetwork, mask_to_fill


class SFINet(SceneNetwork):
    """Semantic foreground inpainting in one pass (paper, Fig. 2)."""

    def forward(
        self, images: Tensor, given_foreground: Tensor | None = None, fake_foreground: Tensor | None = None
    ) -> SceneLogits:
        """See `SceneNetwork.forward`."""
        self._check(images, given_foreground, fake_foreground)
        size = images.shape[-2:]
        image = self.border.pad(images)
        stem, early = self.early(image)
        foreground, *kinds = (self.border.crop(planes, size) for planes in self.foreground(image, stem, early))
        mask = self.border.pad(mask_to_fill(foreground, given_foreground, fake_foreground))

        position = self.options.mpi_position
        if position == "image":
            early = self.early(self.fill(image, mask))[1]
        elif position == "block2":
            early = self.fill(early, mask)
        late = self.late(early)
        if position == "block4":
            late = tuple(self.fill(features, mask) for features in late)
            if self.decoder.joins_early:  # or the decoder would see past the mask
                early = self.fill(early, mask)
        background = self.decoder(early, late, image.shape[-2:])
        if position == "logits":
            background = self.fill(background, mask)
        return SceneLogits(self.border.crop(background, size), foreground, *kinds)
