"""What moves the weights: Adam with two learning rates, and the moving average that is validated and exported."""

from __future__ import annotations

import copy
from itertools import chain

import torch
from torch import Tensor, nn

from sfi_ros.network.scene_network import SceneNetwork
from training.configuration import OptimizerConfig


def build_optimizer(network: SceneNetwork, options: OptimizerConfig, *, fused: bool = False) -> torch.optim.Optimizer:
    """Build Adam or AdamW; encoder and head get their own rates, vectors (biases, normalisation) maybe no decay.

    Args:
        network: whose parameters move.
        options: rates, betas, decay.
        fused: compute a step in one pass over the weights, on a GPU.
    """
    encoder = {id(parameter) for parameter in network.encoder_parameters()}
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for parameter in network.parameters():
        if parameter.requires_grad:
            decays = parameter.ndim > 1 or options.decay_vectors
            groups.setdefault((id(parameter) in encoder, decays), []).append(parameter)
    parameter_groups = [
        {
            "params": parameters,
            "lr": options.encoder_rate if is_encoder else options.head_rate,
            "initial_lr": options.encoder_rate if is_encoder else options.head_rate,
            "weight_decay": options.weight_decay if decays else 0.0,
        }
        for (is_encoder, decays), parameters in groups.items()
    ]
    kind = torch.optim.AdamW if options.name == "adamw" else torch.optim.Adam
    return kind(parameter_groups, betas=options.betas, fused=fused or None)


def set_rates(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Multiply every group's initial learning rate with `factor`."""
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] * factor


class MovingAverage:
    """A moving average of a network's weights and normalisation statistics, in evaluation mode.

    The decay grows from 0.1 to its final value, min(decay, (1 + n)/(10 + n)) at update n: a short run would otherwise
    be validated on an average that is mostly its random initialisation. `torch.optim.swa_utils.AveragedModel` would do
    the same arithmetic, but copies its counter to the GPU in every step, for which the host waits.

    Args:
        network: what is averaged, on its device.
        decay: the final decay.

    Attributes:
        network: the average, with the network's own class.
        updates: how often it has been moved.
    """

    def __init__(self, network: nn.Module, decay: float):
        self.decay, self.updates = decay, 0
        self.network = copy.deepcopy(network).requires_grad_(False).eval()
        pairs = list(zip(_tensors(self.network), _tensors(network), strict=True))
        self._floats = [pair for pair in pairs if pair[0].is_floating_point()]
        self._counters = [pair for pair in pairs if not pair[0].is_floating_point()]

    @torch.no_grad()
    def update(self) -> None:
        """Move the average a step towards the network; counters (integer buffers) are copied."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        averages, values = zip(*self._floats, strict=True)
        torch._foreach_lerp_(averages, values, 1 - decay)
        if self._counters:
            torch._foreach_copy_(*zip(*self._counters, strict=True))


def _tensors(network: nn.Module) -> list[Tensor]:
    return [tensor.detach() for tensor in chain(network.parameters(), network.buffers())]
