"""The network in training: one step, one validation, the optimizer, the moving average of weights.

What is random in a step (dropout) is seeded by (run seed, step, process), so a resumed run continues exactly.
Batches come from `training.data_module`; the losses are those of `training.weak_supervision`.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import Any

import lightning
import numpy as np
import torch
import torch.distributed
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn

from sfi_ros.network import checkpoint, zoo
from sfi_ros.network.preprocessing import normalize
from training.configuration import (
    Configuration,
    NetworkConfig,
    OptimizerConfig,
    ScheduleConfig,
    as_dictionary,
)
from training.data_module import TrainingExample
from training.metrics import SceneMetrics
from training.sample import Batch
from training.weak_supervision import Losses, losses, supervision


class NonFiniteLoss(RuntimeError):
    """The loss or the gradient of a step is infinite or not a number; the message names step and samples."""


@dataclass(frozen=True)
class Prediction:
    """What validation and pictures need: mask probability (N, 1, H, W), background logits (N, 3, H, W)."""

    foreground: Tensor
    background: Tensor


class AveragedNetwork(nn.Module):
    """A moving average of a network's weights and normalisation statistics, in evaluation mode.

    The decay grows from 0.1 to its final value, min(decay, (1 + n)/(10 + n)) at update n: a short run would
    otherwise be validated on an average that is mostly its random initialisation.
    """

    updates: Tensor

    def __init__(self, network: nn.Module, decay: float):
        super().__init__()
        self.decay = decay
        self.network = copy.deepcopy(network).requires_grad_(False).eval()
        self.register_buffer("updates", torch.zeros((), dtype=torch.long))
        self._count = 0

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Moves the average a step towards `network`; counters (integer buffers) are copied."""
        decay = min(self.decay, (1 + self._count) / (10 + self._count))
        self._count += 1
        self.updates.fill_(self._count)
        average, current = self.network.state_dict(), network.state_dict()
        floating = [name for name, value in average.items() if value.is_floating_point()]
        torch._foreach_lerp_([average[n] for n in floating], [current[n] for n in floating], 1 - decay)
        for name, value in average.items():
            if not value.is_floating_point():
                value.copy_(current[name])

    def load_state_dict(self, *arguments: Any, **options: Any) -> Any:
        """As in `nn.Module`."""
        result = super().load_state_dict(*arguments, **options)
        self._count = int(self.updates)
        return result

    def _load_from_state_dict(self, *arguments: Any, **options: Any) -> None:
        super()._load_from_state_dict(*arguments, **options)
        self._count = int(self.updates)

    def train(self, mode: bool = True) -> AveragedNetwork:
        """Stays in evaluation mode."""
        return super().train(False)


class InpaintingModule(lightning.LightningModule):
    """A network of the zoo with losses, optimizer and validation.

    Args:
        configuration: of the run.
        steps: optimizer steps of the whole run, see `data_module.plan`.
        steps_per_epoch: for the staircase schedule.
    """

    def __init__(self, configuration: Configuration, *, steps: int, steps_per_epoch: int):
        super().__init__()
        self.configuration = configuration
        self.steps, self.steps_per_epoch = steps, steps_per_epoch
        self.network = build_network(configuration.network)
        decay = configuration.optimizer.ema_decay
        self.average = AveragedNetwork(self.network, decay) if decay > 0 else None
        self.scores: dict[str, dict[str, Any]] = {}
        self._names: list[str] = []  # of the samples whose gradients the next optimizer step will use
        self.metrics = nn.ModuleDict({name: SceneMetrics() for name in configuration.data.validation})
        self.train()  # Lightning leaves modules as they are, and frozen normalisation has to be put to sleep

    @property
    def product(self) -> nn.Module:
        """The network that is validated and exported: the moving average where there is one."""
        return self.network if self.average is None else self.average.network

    def train(self, mode: bool = True) -> InpaintingModule:
        """Training mode, with batch normalisation left out if it is frozen."""
        super().train(mode)
        if mode and self.configuration.network.freeze_batch_norm:
            for module in self.network.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
        return self

    def training_step(self, batch: TrainingExample, batch_idx: int) -> Tensor:
        """The loss of one batch."""
        self._seed_dropout(batch_idx)
        self._names += batch.names
        configuration = self.configuration
        objects = (batch.foreground == 1)[:, None]
        given = objects if configuration.network.mask_source == "given" else None
        images = normalize(batch.image).contiguous(memory_format=torch.channels_last)
        output = self.network(images, given_foreground=given, fake_foreground=batch.fake_foreground)
        truth = supervision(batch.foreground, batch.background, batch.fake_foreground, configuration.losses)
        result = losses(output.background, output.foreground, truth, configuration.losses, totals=batch.totals)
        self._stop_unless_finite(result)
        scores = {"loss": result.total.detach(), "background": result.background, "foreground": result.foreground}
        if configuration.losses.mask_overlap != "none":
            scores["mask_overlap"] = result.mask_overlap
        for name, value in scores.items():
            self.log(f"train/{name}", value, prog_bar=name == "loss", batch_size=len(batch.names), sync_dist=True)
        return result.total

    def predict(self, batch: Batch) -> Prediction:
        """The product network's answer for a labelled batch."""
        images = normalize(batch.image).contiguous(memory_format=torch.channels_last)
        given = None
        if self.configuration.network.mask_source == "given":
            given = (batch.foreground > 0)[:, None]
        output = self.product(images, given_foreground=given)
        return Prediction(output.foreground.float().sigmoid(), output.background.float())

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> Prediction:
        """Counts one batch of validation set `dataloader_idx`."""
        prediction = self.predict(batch)
        metrics = self.metrics[list(self.metrics)[dataloader_idx]]
        metrics.update(prediction.foreground, prediction.background, batch)
        return prediction

    def on_validation_epoch_end(self) -> None:
        """Scores of every validation set, logged as `val/<set>/<score>`; the last ones are kept in `scores`."""
        for name, metrics in self.metrics.items():
            self.scores[name] = flat_scores(metrics.compute())
            metrics.reset()
            for score, value in self.scores[name].items():
                self.log(f"val/{name}/{score}", value, rank_zero_only=True)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Adam or AdamW with two learning rates, and the schedule as a function of the step."""
        options = self.configuration.optimizer
        optimizer = build_optimizer(self.network, options)
        factor = rate_schedule(self.configuration.schedule, self.steps, self.steps_per_epoch)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def configure_gradient_clipping(self, optimizer: Any, *_: Any, **__: Any) -> None:
        """Clips the gradient's norm, logs it, and stops the run before a gradient that is not finite is used.

        In float16 such gradients are part of the game: the loss scaler skips the step and lowers its factor.
        """
        limit = self.configuration.optimizer.clip_norm
        parameters = [parameter for parameter in self.network.parameters() if parameter.grad is not None]
        norm = nn.utils.clip_grad_norm_(parameters, math.inf if limit is None else limit)
        self.log("train/gradient_norm", norm)
        if self.configuration.run.precision != "16" and not bool(torch.isfinite(norm)):
            raise NonFiniteLoss(
                f"the gradient of step {self.global_step} is not finite; the batch was {', '.join(self._names)}"
            )

    def optimizer_step(self, *arguments: Any, **options: Any) -> None:
        """A step of the optimizer, then one of the moving average."""
        super().optimizer_step(*arguments, **options)
        self._names.clear()
        if self.average is not None:
            self.average.update(self.network)

    def on_save_checkpoint(self, state: dict[str, Any]) -> None:
        """The configuration travels with the weights, and a resumed run is checked against it."""
        state["configuration"] = as_dictionary(self.configuration)

    def on_load_checkpoint(self, state: dict[str, Any]) -> None:
        """Sets the trainer to the checkpoint's step.

        Lightning would restore its nested loops to the very hook in which the file was written. Here the step says
        everything: what comes next depends on nothing else.
        """
        state.pop("loops", None)
        step, loop = state["global_step"], self.trainer.fit_loop.epoch_loop
        optimizer_steps = loop.automatic_optimization.optim_progress.optimizer.step.total
        optimizer_steps.ready = optimizer_steps.completed = step
        batches = loop.batch_progress.total
        batches.ready = batches.started = batches.processed = batches.completed = (
            step * self.trainer.accumulate_grad_batches
        )
        loop._batches_that_stepped = step  # the loggers' x axis

    def _seed_dropout(self, batch_idx: int) -> None:
        # Lightning counts batches from where a run was resumed; steps and parts of a step are the same either way.
        part = batch_idx % self.configuration.data.accumulate
        entropy = (self.configuration.seed, self.global_step, part, self.global_rank)
        torch.manual_seed(int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0] >> 1))

    def _stop_unless_finite(self, result: Losses) -> None:
        finite = torch.isfinite(result.total.detach())
        elsewhere = False
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            everywhere = finite.float()
            torch.distributed.all_reduce(everywhere, torch.distributed.ReduceOp.MIN)
            elsewhere = bool(finite) and not bool(everywhere)
        if elsewhere:
            raise NonFiniteLoss(f"another process met a non-finite loss at step {self.global_step}; its log says more")
        if not bool(finite):
            raise NonFiniteLoss(
                f"the loss of step {self.global_step} is not finite (background {result.background:g}, "
                f"foreground {result.foreground:g}, mask overlap {result.mask_overlap:g}); "
                f"the batch was {', '.join(self._names)}"
            )


def build_network(options: NetworkConfig) -> nn.Module:
    """A network of the zoo as the configuration wants it, channels last (faster convolutions on most devices).

    Raises:
        FileNotFoundError: `pretrained` or `start_from` do not exist.
        ValueError: options that the network does not have, or a checkpoint that does not fit.
        RuntimeError: the download of pretrained weights failed.
    """
    network = zoo.build(
        options.name,
        mpi_position=options.mpi_position,
        fill=options.fill,
        mask_source=options.mask_source,
        foreground_classes=options.foreground_classes,
        pretrained=options.pretrained,
    )
    if options.dropout is not None:
        for module in network.modules():
            if isinstance(module, nn.modules.dropout._DropoutNd):
                module.p = options.dropout
    if options.start_from is not None:
        start = checkpoint.load(options.start_from)
        if start.metadata.name != options.name:
            raise ValueError(
                f"network.start_from={options.start_from} holds a {start.metadata.name}, not a {options.name}: "
                f"set network.name={start.metadata.name}"
            )
        network.load_state_dict(start.network.state_dict())
    return network.to(memory_format=torch.channels_last)


def build_optimizer(network: nn.Module, options: OptimizerConfig) -> torch.optim.Optimizer:
    """Adam or AdamW; encoder and head get their own rates, vectors (biases, normalisation) maybe no decay."""
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
            "weight_decay": options.weight_decay if decays else 0.0,
        }
        for (is_encoder, decays), parameters in groups.items()
    ]
    kind = torch.optim.AdamW if options.name == "adamw" else torch.optim.Adam
    return kind(parameter_groups, betas=options.betas)


def rate_schedule(schedule: ScheduleConfig, steps: int, steps_per_epoch: int) -> Any:
    """The factor of the learning rates as a function of the step."""

    def factor(step: int) -> float:
        warmup = min(1.0, (step + 1) / (schedule.warmup_steps + 1))
        if schedule.decay == "polynomial":
            return warmup * max(0.0, 1 - step / steps) ** schedule.power
        if schedule.decay == "staircase":
            return warmup * 0.1 ** (step // (schedule.staircase_epochs * steps_per_epoch))
        return warmup

    return factor


def flat_scores(scores: dict[str, Any]) -> dict[str, float]:
    """`SceneMetrics.compute()` as one level of names: all_region_miou, foreground_region_iou_road, mask_iou, ..."""
    flat = {}
    for region in ("all_region", "foreground_region"):
        flat[f"{region}_miou"] = scores[region]["miou"]
        flat.update({f"{region}_iou_{name}": value for name, value in scores[region]["iou"].items()})
    flat |= {f"mask_{name}": value for name, value in scores["foreground_mask"].items()}
    return {name: value if math.isfinite(value) else float("nan") for name, value in flat.items()}
