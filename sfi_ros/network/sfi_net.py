"""The single-stage network: one encoder, a foreground mask, and a background seen through it."""

from __future__ import annotations

from torch import Tensor

from sfi_ros.network.scene_network import SceneNetwork


class SFINet(SceneNetwork):
    """Semantic foreground inpainting in one pass (paper, Fig. 2): `see`, then `inpaint`."""

    def see(self, image: Tensor) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """See `SceneNetwork.see`."""
        size = image.shape[-2:]
        image = self.border.pad(image)
        stem, early = self.early(image)
        objects = tuple(self.border.crop(logits, size) for logits in self.foreground(image, stem, early))
        return (image, early), objects

    def inpaint(self, features: tuple[Tensor, ...], mask: Tensor) -> Tensor:
        """See `SceneNetwork.inpaint`."""
        image, early = features
        size = mask.shape[-2:]
        mask = self.border.pad(mask)

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
        return self.border.crop(background, size)
