"""The training loop: step, validation, saving and stopping, in the order in which they happen.

What is random in a step (dropout) is seeded by (run seed, step, part, process), and which samples it gets is a
function of its number (`training.data.stream`): a resumed run needs to know its step and continues exactly.

The host never waits for a GPU within a step: it prepares the next one meanwhile. It looks at losses and gradients
every `run.log_every` steps and before it saves (`training.learning.health`).
"""

from __future__ import annotations

import math
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed
from lightning.fabric import Fabric
from torch import Tensor, nn

from sfi_ros.memory import keep_freed_tensors
from sfi_ros.network.scene_network import SceneNetwork
from training.configuration import Configuration, as_dictionary
from training.data.loaders import TrainingData
from training.data.stream import TrainingExample
from training.learning import checkpoints
from training.learning.checkpoints import BEST, LAST, SCORES, ScoreLog
from training.learning.health import Health
from training.learning.losses import losses, supervision
from training.learning.network import TrainedNetwork, build_network
from training.learning.optimizer import MovingAverage, build_optimizer, set_rates
from training.learning.progress import RunProgress
from training.learning.schedule import Schedule, TimeLimit
from training.learning.signals import Interrupted, StopSignals, agree
from training.learning.validation import validate


@dataclass
class Learner:
    """A network in training, and everything that a step changes.

    Attributes:
        fabric: devices, processes and precision.
        configuration: of the run.
        network: as it is saved.
        model: the same network, as steps run it: uint8 images, mixed precision, several processes.
        optimizer: of its weights.
        average: their moving average, if there is one.
        scaler: of float16's loss, else None.
        health: of the last steps.
        step: how many there have been.
    """

    fabric: Fabric
    configuration: Configuration
    network: SceneNetwork
    model: nn.Module
    optimizer: torch.optim.Optimizer
    average: MovingAverage | None
    scaler: torch.amp.GradScaler | None
    health: Health
    step: int = 0

    @classmethod
    def build(cls, fabric: Fabric, configuration: Configuration) -> Learner:
        """Build network and optimizer on the device; raises as `build_network` does."""
        if fabric.device.type == "cpu":
            keep_freed_tensors()
        torch.manual_seed(configuration.seed)
        network = build_network(configuration.network)
        if fabric.world_size > 1 and fabric.device.type == "cuda":
            network = nn.SyncBatchNorm.convert_sync_batchnorm(network)  # statistics of the whole batch
        trained = TrainedNetwork(
            network,
            freeze_batch_norm=configuration.network.freeze_batch_norm,
            only_kinds=configuration.network.train_only == "kinds",
        )
        if configuration.run.compile:
            trained.compile(dynamic=False)
        model = fabric.setup_module(trained)
        # float16's small gradients would vanish: a scaler multiplies the loss, and skips steps that overflow.
        scaler: torch.amp.GradScaler | None = getattr(fabric.strategy.precision, "scaler", None)
        fused = uses_fused_optimizer(fabric, scaler)
        optimizer = build_optimizer(network, configuration.optimizer, fused=fused)
        health = Health(fabric.device, with_gradient=scaler is None)
        decay = configuration.optimizer.ema_decay
        average = MovingAverage(network, decay) if decay > 0 else None
        return cls(fabric, configuration, network, model, fabric.setup_optimizers(optimizer), average, scaler, health)

    @property
    def product(self) -> SceneNetwork:
        """The network that is validated and exported: the moving average where there is one."""
        return self.network if self.average is None else self.average.network

    @property
    def rate(self) -> float:
        """The learning rate of the head."""
        return self.optimizer.param_groups[-1]["lr"]

    @property
    def is_fused(self) -> bool:
        """Whether the optimizer leaves the weights alone by itself where a gradient is not finite."""
        return bool(self.optimizer.param_groups[0].get("fused"))

    def state(self) -> dict[str, Any]:
        """Return everything that a checkpoint holds; a resumed run is checked against the configuration in it."""
        return {
            "step": self.step,
            "network": self.network.state_dict(),
            "options": self.network.options.to_dict(),
            "average": None if self.average is None else self.average.network.state_dict(),
            "updates": 0 if self.average is None else self.average.updates,
            "optimizer": self.optimizer.state_dict(),
            "scaler": None if self.scaler is None else self.scaler.state_dict(),
            "configuration": as_dictionary(self.configuration),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue where `state` was taken."""
        for group in state["optimizer"]["param_groups"]:
            group["fused"] = self.is_fused or None  # as fits this machine, not the former one
        self.step = state["step"]
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.average is not None:
            self.average.network.load_state_dict(state["average"])
            self.average.updates = state["updates"]
        if self.scaler is not None and state["scaler"] is not None:
            self.scaler.load_state_dict(state["scaler"])


def uses_fused_optimizer(fabric: Fabric, scaler: torch.amp.GradScaler | None) -> bool:
    """Whether a step is computed in one pass, on a GPU. Not in float16: gradients are unscaled and clipped first."""
    return fabric.device.type == "cuda" and scaler is None


def fit(learner: Learner, data: TrainingData, schedule: Schedule, limit: TimeLimit | None, folder: Path) -> None:
    """Train from the learner's step to the end of the schedule; every file is written between two steps.

    Raises:
        NonFiniteLoss: the run broke; what is saved is from before.
        Interrupted: a signal came; the run is saved.
        ConfigurationError: the data cannot be divided among the processes.
    """
    fabric, run, log = learner.fabric, learner.configuration.run, ScoreLog(folder / SCORES)
    monitored = next(iter(learner.configuration.data.validation)), run.monitor
    loaders = data.validation_loaders(fabric)
    batches = data.training_batches(fabric, learner.step, schedule.steps if limit is None else None)

    with StopSignals() as signals, RunProgress(learner.step, is_shown=fabric.is_global_zero) as progress:

        def save() -> None:
            learner.health.check()
            if fabric.is_global_zero:
                spent = {"planned": schedule.steps, "spent": 0.0 if limit is None else limit.spent}
                checkpoints.write({**learner.state(), **spent}, folder / LAST)
            fabric.barrier()

        def stop_at_once() -> None:
            # The step is saved. Several processes share the images unevenly and stop after the next step, together.
            if fabric.world_size == 1 and signals.received:
                raise Interrupted(signals.received, learner.step)

        def score() -> None:
            with nullcontext() if limit is None else limit.validating():
                network, step = learner.product.eval(), learner.step
                scores = validate(fabric, network, loaders, pictures=run.pictures, step=step, after_batch=stop_at_once)
                learner.model.train()
            if fabric.is_global_zero:
                value, best = scores[monitored[0]][monitored[1]], log.best(*monitored, before=step)
                log.append(step, scores)
                report(fabric, step, scores)
                unknown = math.isnan(value) and math.isinf(best)
                if unknown:
                    print(f"warning: {run.monitor} is not known on {monitored[0]}: these weights count as the best")
                if value > best or unknown or not (folder / BEST).is_file():
                    checkpoints.duplicate(folder / LAST, folder / BEST)

        if schedule.validates_at(learner.step):  # the run may have been stopped in the middle of it
            save()
            score()

        while not schedule.ends_at(learner.step):
            numbers = take_step(learner, next(batches), schedule.factor(learner.step))

            logs = learner.step % run.log_every == 0
            if logs or not learner.is_fused:  # a fused optimizer runs on a GPU, and looking at numbers waits for it
                learner.health.check()
                progress.update(learner.step, schedule.steps, float(numbers[0]), learner.rate)
            if logs:
                log_step(learner, numbers)

            planned = None if limit is None else limit.after(learner.step)
            number, steps = agree(signals.received, planned if planned is not None and fabric.is_global_zero else 0)
            if steps:
                schedule.steps = steps

            validates = schedule.validates_at(learner.step)
            due = run.checkpoint_every is not None and learner.step % run.checkpoint_every == 0
            if validates or due or number:  # before a validation too: the best checkpoint is a copy of this file
                save()
            if number:
                raise Interrupted(number, learner.step)
            if validates:
                score()


def take_step(learner: Learner, batch: TrainingExample, factor: float) -> Tensor:
    """Make one optimizer step with a batch, computed in `data.accumulate` parts.

    Args:
        learner: what is changed.
        batch: this process's share, on the device.
        factor: of the learning rates.

    Returns:
        (6,) float32 on the device: total loss, background, foreground, mask overlap, kinds of objects, and the
        gradient's norm.
    """
    fabric, options = learner.fabric, learner.configuration
    set_rates(learner.optimizer, factor)
    truth = supervision(batch.foreground, batch.background, batch.fake_foreground, options.losses, batch.kinds)
    given = (batch.foreground == 1)[:, None] if learner.network.options.mask_source == "given" else None
    fake, parts, computed = batch.fake_foreground, options.data.accumulate, []
    for part in range(parts):
        rows = slice(part * len(batch.names) // parts, (part + 1) * len(batch.names) // parts)
        seed_dropout(options.seed, learner.step, part, fabric.global_rank)
        with fabric.no_backward_sync(learner.model, enabled=part < parts - 1):
            output = learner.model(
                batch.image[rows], None if given is None else given[rows], None if fake is None else fake[rows]
            )
            # Every part knows the pixel weights of the whole, so that their gradients add up to the whole's exactly.
            loss = losses(
                output.background,
                output.foreground,
                truth[rows],
                options.losses,
                totals=truth.totals() / parts,
                kind_logits=output.kinds,
            )
            fabric.backward(loss.total / parts)
        terms = (loss.total.detach(), loss.background, loss.foreground, loss.mask_overlap, loss.kinds)
        computed.append(torch.stack(terms))

    limit = math.inf if options.optimizer.clip_norm is None else options.optimizer.clip_norm
    norm = fabric.clip_gradients(learner.model, learner.optimizer, max_norm=limit, error_if_nonfinite=False)
    numbers = torch.cat([torch.stack(computed).mean(0), norm.detach()[None]])
    learner.health.record(learner.step, batch.names, numbers)
    if learner.is_fused:
        learner.optimizer.optimizer.found_inf = learner.health.broken  # a loss scaler would tell it in this way
    else:
        learner.health.check()
    learner.optimizer.step()
    learner.optimizer.zero_grad()
    if learner.average is not None:
        learner.average.update()
    learner.step += 1
    return numbers


def seed_dropout(seed: int, step: int, part: int, rank: int) -> None:
    """Make what dropout drops a function of the step."""
    torch.manual_seed(int(np.random.SeedSequence((seed, step, part, rank)).generate_state(1, np.uint64)[0]) >> 1)


def log_step(learner: Learner, numbers: Tensor) -> None:
    """Log the losses of a step, averaged over the processes, the gradient's norm and the head's learning rate."""
    if learner.fabric.world_size > 1:
        numbers = numbers.clone()
        torch.distributed.all_reduce(numbers)
        numbers = numbers / learner.fabric.world_size
    names = ("loss", "background", "foreground", "mask_overlap", "kinds", "gradient_norm")
    values = dict(zip(names, numbers.tolist(), strict=True)) | {"rate": learner.rate}
    if learner.configuration.losses.mask_overlap == "none":
        del values["mask_overlap"]
    if not learner.network.options.tells_kinds:
        del values["kinds"]
    learner.fabric.log_dict({f"train/{name}": value for name, value in values.items()}, learner.step)


def report(fabric: Fabric, step: int, scores: dict[str, dict[str, float]]) -> None:
    """Print and log the scores of a validation."""
    for name, values in scores.items():
        fabric.log_dict({f"val/{name}/{score}": value for score, value in values.items()}, step)
        kinds = values["foreground_classes_miou"]
        print(
            f"step {step} on {name}: foreground-region mIoU {values['foreground_region_miou']:.3f}, "
            f"all-region mIoU {values['all_region_miou']:.3f}, mask IoU {values['foreground_mask_iou']:.3f}"
            + ("" if math.isnan(kinds) else f", kinds of objects mIoU {kinds:.3f}"),
            flush=True,
        )
