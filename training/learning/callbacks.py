"""What happens around training steps: checkpoints, stopping by signal, progress, pictures, the score log.

Lightning's own callbacks are used where they do what is needed. Checkpoints are written here because a run must
be resumable from any step, also when the signal comes in the middle of a validation, and because a file must be
replaced at once or not at all.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, BinaryIO

import lightning
import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch.callbacks import Callback, RichProgressBar
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor

from sfi_ros.classes import BACKGROUND_COLORS, IGNORE_COLOR
from training.data.sample import Batch
from training.learning.lightning_module import InpaintingModule, Prediction
from training.learning.read_later import ReadLater

LAST, BEST, SCORES = "last.ckpt", "best.ckpt", "scores.jsonl"
"""Files in the run's folder."""


STOPPING_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def signals_given_back() -> Iterator[None]:
    """Whatever a run does with the signals that stop it, behind it they mean what they meant before."""
    before = {number: signal.getsignal(number) for number in STOPPING_SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Interrupted(Exception):
    """SIGINT or SIGTERM came, and the run was saved; `signal_number` says which."""

    def __init__(self, signal_number: int, step: int):
        super().__init__(f"stopped by {signal.Signals(signal_number).name} after step {step}")
        self.signal_number, self.step = signal_number, step


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes beside the file, flushes to disk, then renames; reads tensors and plain values only, never code.

    Lightning's own writer goes through the system's temporary folder; from another file system its last move
    is a copy, which a power cut can leave half done.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Writes `checkpoint` to `path`."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        with _replaced_at_once(path) as file:
            torch.save(checkpoint, file)

    def load_checkpoint(self, path: Any, map_location: Any = "cpu", weights_only: bool | None = None) -> dict[str, Any]:
        """Reads `path`."""
        return torch.load(path, map_location=map_location, weights_only=True)


@contextmanager
def _replaced_at_once(path: Path) -> Iterator[BinaryIO]:
    """A file whose content appears under `path` when it is complete and on disk, and otherwise not at all."""
    partial = path.with_name(path.name + ".partial")
    with partial.open("wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def _duplicate(source: Path, target: Path) -> None:
    """Makes `target` the same as `source`, at once; as a second name of the same bytes where that is possible."""
    if target.exists() and target.samefile(source):
        return
    partial = target.with_name(target.name + ".partial")
    partial.unlink(missing_ok=True)
    try:
        os.link(source, partial)  # `source` is never written into, only replaced
    except OSError:
        shutil.copyfile(source, partial)
    partial.replace(target)


class ScoreLog:
    """One JSON line per validation: step and scores of every set. The newest line of a step counts."""

    def __init__(self, path: Path):
        self.path = path

    def append(self, step: int, scores: dict[str, dict[str, float]]) -> None:
        """Adds the scores of a validation; NaN is written as null."""
        plain = {
            name: {score: value if math.isfinite(value) else None for score, value in values.items()}
            for name, values in scores.items()
        }
        with self.path.open("a") as file:
            file.write(json.dumps({"step": step, "scores": plain}) + "\n")

    def read(self) -> list[dict[str, Any]]:
        """All lines by step; a line that a crash cut off is left out."""
        rows: dict[int, dict[str, Any]] = {}
        if self.path.is_file():
            for line in self.path.read_text().splitlines():
                try:
                    row = json.loads(line)
                except json.JSONDecodeError:
                    continue
                rows[row["step"]] = row
        return [rows[step] for step in sorted(rows)]

    def forget_after(self, step: int) -> None:
        """Drops the lines of later steps, which a run resumed at `step` writes anew."""
        kept = [row for row in self.read() if row["step"] <= step]
        self.path.write_text("".join(json.dumps(row) + "\n" for row in kept))


class CheckpointWriter(Callback):
    """Saves `last.ckpt` regularly and on signals, keeps a copy of the best one by the monitored score.

    Every file is written between two steps, so a run can be resumed from either.

    Args:
        folder: of the run.
        round_steps: optimizer steps between validations.
        every: optimizer steps between two saves of `last.ckpt`; None saves only at validations.
        monitored: (validation set, score) that chooses the best.
        start: the checkpoint that the run is resumed from.
    """

    def __init__(
        self,
        folder: Path,
        *,
        round_steps: int,
        every: int | None,
        monitored: tuple[str, str],
        start: Path | None = None,
    ):
        self.folder, self.round_steps, self.every, self.monitored = folder, round_steps, every, monitored
        self.score_log = ScoreLog(folder / SCORES)
        self._saved = start  # the file that holds the state which is validated
        self._signal = 0
        self._asked: ReadLater | None = None  # which signal any process had received by the step before
        self._step = -1

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Takes over the signals (behind Lightning, which has just set its own handlers)."""
        self._step = trainer.global_step
        self._take_signals()
        # Lightning makes every process wait for its GPU in every step to agree on SIGTERM; that is done here.
        trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = lambda: None

    def on_validation_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Likewise for the validation with which a resumed run may begin."""
        self._take_signals()

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, *_: Any, **__: Any
    ) -> None:
        """Saves where it is due; stops the run if a signal came."""
        step = trainer.global_step
        if step == self._step:
            return  # in the middle of an accumulated batch: its gradients cannot be saved
        self._step = step
        number = self._agreed_signal(trainer)
        due = self.every is not None and step % self.every == 0
        # Before every validation too: the best checkpoint is a copy, and a signal may come while it lasts.
        if number or due or step % self.round_steps == 0:
            trainer.save_checkpoint(self.folder / LAST)
            self._saved = self.folder / LAST
        if number:
            raise Interrupted(number, step)

    def on_validation_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, *_: Any, **__: Any
    ) -> None:
        """Does not make a signal wait for the end of a validation: the step is saved already.

        Several processes share the images unevenly and cannot agree here; they stop after the next step.
        """
        if trainer.world_size == 1 and self._signal:
            raise Interrupted(self._signal, trainer.global_step)

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Logs the scores and keeps the checkpoint if they are the best."""
        assert isinstance(pl_module, InpaintingModule)
        if not trainer.is_global_zero:
            return
        earlier = [row for row in self.score_log.read() if row["step"] < trainer.global_step]
        best = max((self._score(row["scores"]) for row in earlier), default=-math.inf)
        self.score_log.append(trainer.global_step, pl_module.scores)
        best_file = self.folder / BEST
        if self._score(pl_module.scores) > best or not best_file.is_file():
            assert self._saved is not None
            _duplicate(self._saved, best_file)

    def _take_signals(self) -> None:
        for number in STOPPING_SIGNALS:
            signal.signal(number, self._on_signal)

    def _score(self, scores: dict[str, dict[str, Any]]) -> float:
        name, score = self.monitored
        value = scores.get(name, {}).get(score)
        return -math.inf if value is None or math.isnan(value) else value

    def _on_signal(self, number: int, _: Any) -> None:
        if self._signal:  # the second one does not wait
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        self._signal = number

    def _agreed_signal(self, trainer: lightning.Trainer) -> int:
        """The signal that any process received, so that all stop at the same step.

        Several processes learn of it a step later, so that none has to wait for its GPU.
        """
        if trainer.world_size == 1:
            return self._signal
        agreed = 0 if self._asked is None else int(self._asked.wait())
        number = torch.full((), self._signal, device=trainer.strategy.root_device)
        torch.distributed.all_reduce(number, torch.distributed.ReduceOp.MAX)
        self._asked = ReadLater(number)
        return agreed


class Pace:
    """Speed and remaining time of this session."""

    def __init__(self, steps: int):
        self.steps = steps
        self._start: tuple[float, int] | None = None

    def at(self, step: int) -> tuple[float, str]:
        """(steps per second so far, remaining time as h:mm:ss)."""
        now = time.monotonic()
        if self._start is None:
            self._start = (now, step)
        seconds, done = now - self._start[0], step - self._start[1]
        if done == 0 or seconds == 0:
            return 0.0, "-:--:--"
        speed = done / seconds
        return speed, str(timedelta(seconds=round((self.steps - step) / speed)))


class BarProgress(RichProgressBar):
    """The progress bar of a terminal, with step and remaining time of the whole run beside it."""

    def __init__(self, steps: int):
        super().__init__(refresh_rate=1)
        self._pace = Pace(steps)
        self._shown: tuple[float, dict[str, Any]] = (-math.inf, {})

    def get_metrics(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> dict[str, Any]:
        """What is shown behind the bar; renewed once a second, since reading the loss waits for a GPU."""
        if time.monotonic() - self._shown[0] > 1:
            self._shown = (time.monotonic(), self._metrics(trainer, pl_module))
        return self._shown[1]

    def _metrics(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> dict[str, Any]:
        metrics = super().get_metrics(trainer, pl_module)
        metrics.pop("v_num", None)
        if "train/loss" in trainer.callback_metrics:
            metrics["loss"] = float(trainer.callback_metrics["train/loss"])
        _, remaining = self._pace.at(trainer.global_step)
        return {"step": f"{trainer.global_step}/{self._pace.steps}", "left": remaining, **metrics}


class LineProgress(Callback):
    """One line every few seconds, for logs and pipes."""

    def __init__(self, steps: int, seconds: float = 15.0):
        self._pace, self._seconds, self._last = Pace(steps), seconds, -math.inf
        self._step = 0

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Starts the clock."""
        self._step = trainer.global_step
        self._pace.at(self._step)

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, *_: Any
    ) -> None:
        """Prints a line if the last one is old, or the run ends."""
        if trainer.global_step == self._step:
            return  # a part of an accumulated batch
        self._step, now = trainer.global_step, time.monotonic()
        if trainer.is_global_zero and (now - self._last > self._seconds or trainer.global_step == self._pace.steps):
            self._last = now
            speed, remaining = self._pace.at(trainer.global_step)
            rate = trainer.optimizers[0].param_groups[-1]["lr"]
            loss = float(outputs["loss"]) * trainer.accumulate_grad_batches
            print(
                f"step {trainer.global_step}/{self._pace.steps}  loss {loss:.4f}  rate {rate:.2e}  "
                f"{speed:.2f} steps/s  {remaining} left",
                flush=True,
            )


class ScorePrinter(Callback):
    """Prints the scores of every validation set in a line."""

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Prints."""
        assert isinstance(pl_module, InpaintingModule)
        for name, scores in pl_module.scores.items() if trainer.is_global_zero else ():
            print(
                f"step {trainer.global_step} on {name}: foreground-region mIoU {scores['foreground_region_miou']:.3f}, "
                f"all-region mIoU {scores['all_region_miou']:.3f}, mask IoU {scores['mask_iou']:.3f}",
                flush=True,
            )


class Pictures(Callback):
    """Draws images of the first validation set into TensorBoard: input, answer and truth above each other."""

    def __init__(self, count: int):
        self.count = count
        self._pictures: list[Tensor] = []

    def on_validation_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keeps the first image of evenly spaced batches."""
        if dataloader_idx == 0 and trainer.is_global_zero and self.count > 0:
            spacing = max(1, int(trainer.num_val_batches[0]) // self.count)
            if batch_idx % spacing == 0 and len(self._pictures) < self.count:
                self._pictures.append(_picture(batch, outputs))

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Writes what was kept."""
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                for number, picture in enumerate(self._pictures):
                    logger.experiment.add_image(f"validation/{number}", picture, trainer.global_step)
        self._pictures.clear()


def _picture(batch: Batch, prediction: Prediction) -> Tensor:
    """(3, 3H, W) uint8: the first image; the predicted background with the mask darkened; the same of the truth."""
    # Not the palette of sfi_ros.visualization: that one needs OpenCV, which a bare training server may lack.
    palette = torch.tensor([IGNORE_COLOR], dtype=torch.uint8).repeat(256, 1)
    palette[: len(BACKGROUND_COLORS)] = torch.tensor(BACKGROUND_COLORS, dtype=torch.uint8)
    image = batch.image[0].cpu()
    answer = palette[prediction.background[0].argmax(0).cpu()].permute(2, 0, 1)
    truth = palette[batch.truth[0].cpu().long()].permute(2, 0, 1)
    mask = (prediction.foreground[0] >= 0.5).cpu()
    true_mask = batch.foreground[:1].cpu() > 0
    shaded = [torch.where(covered, colors // 2, colors) for colors, covered in ((answer, mask), (truth, true_mask))]
    return torch.cat([image, *shaded], dim=1).to(torch.uint8)
