"""The network in training: one step, one validation, the optimizer, the moving average of weights.

What is random in a step (dropout) is seeded by (run seed, step, process), so a resumed run continues exactly.
Batches come from `training.data.data_module`; the losses are those of `training.learning.losses`.

The host never waits for a GPU within a step: it prepares the next one meanwhile. What it has to know of a step, it
reads one step later (`training.learning.read_later`); losses are logged every `run.log_every` steps only.
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
from sfi_ros.network.outputs import SceneLogits
from sfi_ros.network.preprocessing import normalization
from training.configuration import (
    Configuration,
    NetworkConfig,
    OptimizerConfig,
    ScheduleConfig,
    as_dictionary,
)
from training.data.data_module import TrainingExample
from training.data.sample import Batch
from training.learning.losses import losses, supervision
from training.learning.read_later import ReadLater
from training.measuring.metrics import SceneMetrics


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
        self._pairs: tuple[list[Tensor], ...] = ()

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Moves the average a step towards `network`, always the same one; counters (integer buffers) are copied."""
        decay = min(self.decay, (1 + self._count) / (10 + self._count))
        self._count += 1
        self.updates.fill_(self._count)
        if not self._pairs:
            self._pairs = _pairs(self.network, network)
        averages, values, counters, counts = self._pairs
        torch._foreach_lerp_(averages, values, 1 - decay)
        if counters:
            torch._foreach_copy_(counters, counts)

    def load_state_dict(self, *arguments: Any, **options: Any) -> Any:
        """As in `nn.Module`."""
        result = super().load_state_dict(*arguments, **options)
        self._count = int(self.updates)
        return result

    def _load_from_state_dict(self, *arguments: Any, **options: Any) -> None:
        super()._load_from_state_dict(*arguments, **options)
        self._count = int(self.updates)

    def _apply(self, *arguments: Any, **options: Any) -> AveragedNetwork:
        self._pairs = ()  # on another device there will be other tensors
        return super()._apply(*arguments, **options)

    def train(self, mode: bool = True) -> AveragedNetwork:
        """Stays in evaluation mode."""
        return super().train(False)


def _pairs(average: nn.Module, network: nn.Module) -> tuple[list[Tensor], ...]:
    """Tensors of the average and of the network: first those that are averaged, then those that are copied."""
    ours, theirs = average.state_dict(), network.state_dict()
    averaged = [name for name, value in ours.items() if value.is_floating_point()]
    copied = [name for name in ours if name not in set(averaged)]
    return tuple([state[name] for name in names] for names in (averaged, copied) for state in (ours, theirs))


def answer(
    network: nn.Module,
    image: Tensor,
    scale: Tensor,
    shift: Tensor,
    given_foreground: Tensor | None = None,
    fake_foreground: Tensor | None = None,
) -> SceneLogits:
    """A network's logits for (N, 3, H, W) uint8 images; `scale` and `shift` normalise them."""
    images = torch.addcmul(shift, image.float(), scale).contiguous(memory_format=torch.channels_last)
    return network(images, given_foreground=given_foreground, fake_foreground=fake_foreground)


@dataclass(frozen=True)
class Health:
    """Whether what one step computed is finite.

    Attributes:
        step: its number.
        names: of the samples.
        numbers: total loss, background, foreground, mask overlap, and the gradient's norm, on their way to the host.
        with_gradient: whether the norm counts.
    """

    step: int
    names: list[str]
    numbers: ReadLater
    with_gradient: bool

    def check(self) -> None:
        """Raises `NonFiniteLoss` if it is not."""
        total, background, foreground, overlap, norm = self.numbers.wait().tolist()
        batch = f"the batch was {', '.join(self.names)}"
        if not math.isfinite(total):
            raise NonFiniteLoss(
                f"the loss of step {self.step} is not finite (background {background:g}, foreground {foreground:g}, "
                f"mask overlap {overlap:g}); {batch}"
            )
        if self.with_gradient and not math.isfinite(norm):
            elsewhere = ""
            if torch.distributed.is_available() and torch.distributed.is_initialized():
                elsewhere = ", maybe by what another process computed: its log would say more"
            raise NonFiniteLoss(f"the gradient of step {self.step} is not finite{elsewhere}; {batch}")


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
        self._answer = torch.compile(answer, dynamic=False) if configuration.run.compile else answer
        self._names: list[str] = []  # of the samples whose gradients the next optimizer step will use
        self._losses: list[Tensor] = []  # of the parts of that step
        self._health: Health | None = None  # of the last step, where it is not known yet
        scale, shift = normalization()
        self.register_buffer("scale", scale, persistent=False)
        self.register_buffer("shift", shift, persistent=False)
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
        output = self._answer(self.network, batch.image, self.scale, self.shift, given, batch.fake_foreground)
        truth = supervision(batch.foreground, batch.background, batch.fake_foreground, configuration.losses)
        result = losses(output.background, output.foreground, truth, configuration.losses, totals=batch.totals)
        scores = {
            "loss": result.total.detach(),
            "background": result.background,
            "foreground": result.foreground,
            "mask_overlap": result.mask_overlap,
        }
        self._losses.append(torch.stack(list(scores.values())))
        if configuration.losses.mask_overlap == "none":
            del scores["mask_overlap"]
        if self._is_logged:
            for name, value in scores.items():  # not for Lightning's progress bar, which would wait in every step
                self.log(f"train/{name}", value, batch_size=len(batch.names), sync_dist=True)
        return result.total

    def predict(self, batch: Batch) -> Prediction:
        """The product network's answer for a labelled batch."""
        given = None
        if self.configuration.network.mask_source == "given":
            given = (batch.foreground > 0)[:, None]
        output = answer(self.product, batch.image, self.scale, self.shift, given)
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
        optimizer = build_optimizer(self.network, self.configuration.optimizer, fused=self._is_fused)
        factor = rate_schedule(self.configuration.schedule, self.steps, self.steps_per_epoch)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def configure_gradient_clipping(self, optimizer: Any, *_: Any, **__: Any) -> None:
        """Clips the gradient's norm, logs it, and stops the run before what is not finite is used.

        A fused optimizer is told on the GPU to leave the weights alone, and the run stops a step later: nobody waits.
        In float16 such gradients are part of the game: the loss scaler skips the step and lowers its factor.
        """
        limit = self.configuration.optimizer.clip_norm
        parameters = [parameter for parameter in self.network.parameters() if parameter.grad is not None]
        norm = nn.utils.clip_grad_norm_(parameters, math.inf if limit is None else limit)
        if self._is_logged:
            self.log("train/gradient_norm", norm)
        numbers = torch.cat([torch.stack(self._losses).sum(0), norm.detach()[None]])
        scaled = self.configuration.run.precision == "16"
        health = Health(self.global_step, [*self._names], ReadLater(numbers), with_gradient=not scaled)
        if optimizer.param_groups[0].get("fused"):
            optimizer.found_inf = (~torch.isfinite(numbers).all()).float()  # as a loss scaler tells it
            self._settle()
            self._health = health
        else:
            health.check()

    def optimizer_step(self, *arguments: Any, **options: Any) -> None:
        """A step of the optimizer, then one of the moving average."""
        super().optimizer_step(*arguments, **options)
        self._names.clear()
        self._losses.clear()
        if self.average is not None:
            self.average.update(self.network)

    def on_train_end(self) -> None:
        """A run does not end before its last step is known to be good."""
        self._settle()

    def on_save_checkpoint(self, state: dict[str, Any]) -> None:
        """The configuration travels with the weights, and a resumed run is checked against it."""
        self._settle()
        state["configuration"] = as_dictionary(self.configuration)

    def on_load_checkpoint(self, state: dict[str, Any]) -> None:
        """Sets the trainer to the checkpoint's step.

        Lightning would restore its nested loops to the very hook in which the file was written. Here the step says
        everything: what comes next depends on nothing else.
        """
        state.pop("loops", None)
        for optimizer in state.get("optimizer_states", ()):
            for group in optimizer["param_groups"]:
                group["fused"] = True if self._is_fused else None  # as fits this machine, not the former one
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

    @property
    def _is_logged(self) -> bool:
        return (self.global_step + 1) % self.trainer.log_every_n_steps == 0

    @property
    def _is_fused(self) -> bool:
        # The scaler of float16 wants to see gradients before a fused optimizer would let it.
        return self.trainer.strategy.root_device.type == "cuda" and self.configuration.run.precision != "16"

    def _settle(self) -> None:
        """Raises `NonFiniteLoss` if the last step was not finite, once that can be known."""
        health, self._health = self._health, None
        if health is not None:
            health.check()


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


def build_optimizer(network: nn.Module, options: OptimizerConfig, *, fused: bool = False) -> torch.optim.Optimizer:
    """Adam or AdamW; encoder and head get their own rates, vectors (biases, normalisation) maybe no decay.

    `fused` computes a step in one pass over the weights, on a GPU.
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
            "weight_decay": options.weight_decay if decays else 0.0,
        }
        for (is_encoder, decays), parameters in groups.items()
    ]
    kind = torch.optim.AdamW if options.name == "adamw" else torch.optim.Adam
    return kind(parameter_groups, betas=options.betas, fused=fused or None)


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
