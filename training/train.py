"""Trains a network: `python training/train.py --config config/training/default.yaml`.

Reads a configuration, trains with Lightning, validates, writes logs and checkpoints into the run's folder, and
ends with a product checkpoint that the node and `sfi` load, and the command that evaluates it.
"""

from __future__ import annotations

import argparse
import logging
import os
import shlex
import shutil
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import lightning
import torch
import yaml
from lightning.pytorch.callbacks import Callback, LearningRateMonitor
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger

from sfi_ros.network import checkpoint
from training.check_data import check_dataset
from training.configuration import Configuration, ConfigurationError, as_dictionary, load
from training.data.data_module import StreetData, open_source, plan
from training.data.datasets import DatasetError
from training.learning.callbacks import (
    BEST,
    LAST,
    SCORES,
    AtomicCheckpointIO,
    BarProgress,
    CheckpointWriter,
    Interrupted,
    LineProgress,
    Pictures,
    ScoreLog,
    ScorePrinter,
    signals_given_back,
)
from training.learning.lightning_module import InpaintingModule, NonFiniteLoss, build_network

DESCRIPTION = """\
Train a network. What is trained, on what and how stands in a YAML file under config/training; any of its values
can be overridden behind it as section.key=value (values are YAML; null removes or switches off).
"""

_MAY_CHANGE = tuple(f"data.{key}" for key in ("workers", "validation", "roots", "cache", "augment_on"))
"""Settings that decide where and how fast a run is computed, not what."""

EXAMPLES = """\
examples:
  # no download, a few minutes on a laptop
  python training/train.py --config config/training/quickstart.yaml

  # the default recipe, Cityscapes elsewhere, longer
  python training/train.py --config config/training/default.yaml \\
      data.roots.cityscapes=/data/cityscapes schedule.steps=20000

  # stop it with Ctrl-C or SIGTERM, continue exactly where it was
  python training/train.py --config config/training/default.yaml --resume last

  # four GPUs of one machine
  torchrun --nproc-per-node 4 training/train.py --config config/training/paper.yaml

files in the run's folder (`output` in the configuration):
  config.yaml           the configuration with all overrides
  last.ckpt, best.ckpt  complete state; --resume continues from either
  scores.jsonl          one line per validation
  logs/                 metrics.csv and TensorBoard events (tensorboard --logdir <output>/logs)
  model.safetensors     the product: what `sfi`, the node and training/evaluate.py load

exit status: 0 finished, 1 stopped by an error, 2 wrong configuration or data, 130/143 stopped by a signal and saved.
"""


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    options = _parser().parse_intermixed_args(arguments)
    try:
        overrides = [*options.overrides, *([f"output={options.output}"] if options.output else [])]
        configuration = load(options.config, overrides)
        if options.check:
            _check_data(configuration)
        run(configuration, resume=options.resume, overwrite=options.overwrite)
    except (ConfigurationError, DatasetError, FileExistsError, FileNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except NonFiniteLoss as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except Interrupted as stop:
        if _rank() == 0:
            again = _resume_command(sys.argv[1:] if arguments is None else arguments)
            print(f"{stop}; everything is saved. Continue exactly there with:\n  {again}", flush=True)
        return 128 + stop.signal_number
    return 0


def run(configuration: Configuration, *, resume: str | None = None, overwrite: bool = False) -> Path:
    """Trains and exports.

    Args:
        configuration: what to do.
        resume: a checkpoint to continue from, or "last" for `last.ckpt` in the run's folder.
        overwrite: start anew in a folder that holds a run.

    Returns:
        The product checkpoint.

    Raises:
        ConfigurationError, DatasetError, FileExistsError, FileNotFoundError: before anything is trained.
        NonFiniteLoss: the run broke; the message names step and samples.
        Interrupted: a signal came; the run is saved.
    """
    folder = Path(configuration.output)
    start = _starting_point(folder, resume, overwrite)
    quiet_lightning()
    choose_gpu_kernels(configuration)
    torch.manual_seed(configuration.seed)

    try:
        data = StreetData(configuration)
        steps, round_steps = plan(configuration, data.training_set)
        module = InpaintingModule(configuration, steps=steps, steps_per_epoch=data.training_set.steps_per_epoch())
    except (DatasetError, FileNotFoundError):
        raise
    except (ValueError, RuntimeError) as error:  # RuntimeError: pretrained weights that cannot be downloaded
        raise ConfigurationError(str(error)) from error
    step = 0 if start is None else _require_same_run(start, configuration)

    monitored = (next(iter(configuration.data.validation)), configuration.run.monitor)
    writer = CheckpointWriter(
        folder, round_steps=round_steps, every=configuration.run.checkpoint_every, monitored=monitored, start=start
    )
    callbacks: list[Callback] = [
        writer,
        BarProgress(steps) if sys.stdout.isatty() else LineProgress(steps),
        ScorePrinter(),
        Pictures(configuration.run.pictures),
    ]
    loggers = _loggers(configuration, folder)
    if loggers:
        callbacks.append(LearningRateMonitor("step"))
    trainer = build_trainer(configuration, steps=steps, round_steps=round_steps, callbacks=callbacks, loggers=loggers)
    if trainer.is_global_zero:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.yaml").write_text(yaml.safe_dump(as_dictionary(configuration), sort_keys=False))
        print(_summary(configuration, data, module, steps, round_steps), flush=True)
        ScoreLog(folder / SCORES).forget_after(step)
    begin = {"datamodule": data, "ckpt_path": None if start is None else str(start)}
    try:
        with signals_given_back():
            if step > 0 and step % round_steps == 0:
                # The run may have been stopped in the middle of this step's validation.
                trainer.validate(module, verbose=False, **begin)
            if step < steps:
                trainer.fit(module, **begin)
    except NonFiniteLoss as error:
        if trainer.is_global_zero:
            (folder / "stopped.txt").write_text(f"{error}\n")
        raise
    product = folder / "model.safetensors"
    if trainer.is_global_zero:
        export(configuration, folder, product)
        print(_farewell(configuration, product), flush=True)
    trainer.strategy.barrier()
    return product


def choose_gpu_kernels(configuration: Configuration) -> None:
    """Lets a GPU multiply float32 on its tensor cores, and cuDNN look for the fastest convolutions."""
    if configuration.run.accelerator != "cpu" and torch.cuda.is_available():
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.benchmark = not configuration.run.deterministic


def export(configuration: Configuration, folder: Path, product: Path) -> None:
    """Writes the product checkpoint of a finished run, with its validation scores and how it was made."""
    source = folder / (BEST if configuration.run.export == "best" else LAST)
    state = torch.load(source, map_location="cpu", weights_only=True)
    prefix = "average.network." if configuration.optimizer.ema_decay > 0 else "network."
    network = build_network(replace(configuration.network, pretrained=None, start_from=None))
    network.load_state_dict(
        {key.removeprefix(prefix): value for key, value in state["state_dict"].items() if key.startswith(prefix)}
    )
    step = state["global_step"]
    row = next(row for row in ScoreLog(folder / SCORES).read() if row["step"] == step)
    scores = {
        f"{name}/{score}": value
        for name, values in row["scores"].items()
        for score, value in values.items()
        if value is not None
    }
    checkpoint.save(
        product,
        network.eval(),
        input_height=configuration.network.input_height,
        training_data=configuration.run.training_data,
        scores=scores,
        extra={
            "step": step,
            "command": shlex.join([Path(sys.executable).name, *sys.argv]),
            "configuration": as_dictionary(configuration),
        },
        dtype=torch.float16 if configuration.run.half else torch.float32,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="training/train.py",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", required=True, metavar="FILE", help="the YAML file to start from")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value", help="values that replace its own")
    parser.add_argument("--output", metavar="FOLDER", help="the run's folder (same as output=FOLDER)")
    start = parser.add_argument_group("how to start")
    exclusive = start.add_mutually_exclusive_group()
    exclusive.add_argument(
        "--resume", metavar="CKPT|last", help="continue exactly from a checkpoint, or from the run's last one"
    )
    exclusive.add_argument("--overwrite", action="store_true", help="start anew in a folder that already holds a run")
    start.add_argument(
        "--check",
        action="store_true",
        help="first scan every dataset for unreadable files and label problems",
    )
    return parser


def _starting_point(folder: Path, resume: str | None, overwrite: bool) -> Path | None:
    if resume is not None:
        path = folder / LAST if resume == "last" else Path(resume)
        if not path.is_file():
            raise FileNotFoundError(f"there is nothing to resume: {path} does not exist")
        return path
    if (folder / LAST).is_file():
        if not overwrite:
            raise FileExistsError(
                f"{folder} holds a run already: --resume last continues it, --overwrite starts anew, "
                "output=FOLDER puts this one elsewhere"
            )
        if _rank() == 0:
            for name in (LAST, BEST, SCORES, "model.safetensors", "stopped.txt"):
                (folder / name).unlink(missing_ok=True)
            shutil.rmtree(folder / "logs", ignore_errors=True)
    return None


def _require_same_run(start: Path, configuration: Configuration) -> int:
    """The step of a checkpoint, if its run had the settings without which nothing can be continued exactly."""
    saved = torch.load(start, map_location="cpu", weights_only=True)
    differences = [
        f"{key}: {old} -> {new}"
        for key, (old, new) in sorted(_differences(saved["configuration"], as_dictionary(configuration)).items())
        if not key.startswith(("run.", "output", *_MAY_CHANGE))
    ]
    if differences:
        raise ConfigurationError(
            f"{start} belongs to a run with other settings ({'; '.join(differences)}): "
            "resume with the same ones, or start a new run"
        )
    return saved["global_step"]


def _differences(old: Any, new: Any, where: str = "") -> dict[str, tuple[Any, Any]]:
    if isinstance(old, dict) and isinstance(new, dict):
        found: dict[str, tuple[Any, Any]] = {}
        for key in {*old, *new}:
            found |= _differences(old.get(key), new.get(key), f"{where}.{key}" if where else key)
        return found
    return {} if old == new else {where: (old, new)}


def build_trainer(
    configuration: Configuration, *, steps: int, round_steps: int, callbacks: list[Callback], loggers: list[Logger]
) -> lightning.Trainer:
    """Lightning's loop for a run of `steps`, with a validation every `round_steps`."""
    options = configuration.run
    on_gpu = options.accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available()
    # torchrun says how many processes there are; otherwise all GPUs of the machine, or one CPU process.
    local = int(os.environ.get("LOCAL_WORLD_SIZE", 0))
    devices = local or options.devices or (torch.cuda.device_count() if on_gpu else 1)
    nodes = int(os.environ["WORLD_SIZE"]) // local if local else options.nodes
    several = devices * nodes > 1
    precision = options.precision
    if precision == "auto":
        precision = "bf16" if on_gpu and torch.cuda.is_bf16_supported(including_emulation=False) else "32"
    return lightning.Trainer(
        accelerator=options.accelerator,
        devices=devices,
        num_nodes=nodes,
        strategy="ddp" if several else "auto",
        sync_batchnorm=several and on_gpu,
        precision={"32": "32-true", "bf16": "bf16-mixed", "16": "16-mixed"}[precision],
        deterministic="warn" if options.deterministic else False,
        max_epochs=-1,
        max_steps=steps,
        accumulate_grad_batches=configuration.data.accumulate,
        # The whole run is one epoch of Lightning's: validations are counted in batches from its very beginning.
        val_check_interval=round_steps * configuration.data.accumulate,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        inference_mode=False,  # a resumed run may validate before it trains; its counters must stay ordinary tensors
        use_distributed_sampler=False,
        log_every_n_steps=options.log_every,
        logger=loggers,
        callbacks=callbacks,
        enable_checkpointing=False,
        enable_progress_bar=sys.stdout.isatty(),
        enable_model_summary=False,
        default_root_dir=configuration.output,
        plugins=[AtomicCheckpointIO()],
    )


def _loggers(configuration: Configuration, folder: Path) -> list[Logger]:
    kinds = {"csv": CSVLogger, "tensorboard": TensorBoardLogger}
    for name in configuration.run.loggers:
        if name not in kinds:
            raise ConfigurationError(f"run.loggers: unknown logger {name!r}, known are {', '.join(kinds)}")
    return [kinds[name](folder / "logs", name=name) for name in configuration.run.loggers]


def _summary(
    configuration: Configuration, data: StreetData, module: InpaintingModule, steps: int, round_steps: int
) -> str:
    network = configuration.network
    parameters = sum(parameter.numel() for parameter in module.network.parameters())
    lines = [
        f"{network.name} ({parameters / 1e6:.2f} M parameters), MPI at {network.mpi_position}, fill {network.fill}, "
        f"mask {network.mask_source}, from {network.start_from or network.pretrained or 'random weights'}"
    ]
    stream = data.training_set
    for name, length, share in zip(configuration.data.train, stream.lengths, stream.shares, strict=True):
        lines.append(f"trains on {name}: {length} images, {share:.0%} of every batch")
    for name, dataset in data.validation_sets.items():
        lines.append(f"validates on {name}: {len(dataset)} images, every {round_steps} steps")
    if configuration.data.cache == "ram":
        lines.append(f"keeps decoded images in memory, up to {configuration.data.cache_gigabytes:g} GB")
    if configuration.run.compile:
        lines.append("compiles the network in the first step; that takes a minute or more")
    lines.append(f"{steps} steps of {configuration.data.batch_size}; everything goes to {configuration.output}")
    return "\n".join(lines)


def _farewell(configuration: Configuration, product: Path) -> str:
    source = next(iter(configuration.data.validation.values()))
    root = source.root or configuration.data.roots.get(source.dataset)
    place = "" if root is None else f" --root {shlex.quote(root)}"
    if source.dataset in ("cityscapes", "synthetic"):
        place += f" --split {source.split}"
    if source.pasted > 0:
        place += " --pasted"
    if source.limit is not None:
        place += f" --limit {source.limit}"
    metadata = checkpoint.read_metadata(product)
    return (
        f"wrote {product} ({product.stat().st_size / 1e6:.1f} MB, weights of step {metadata.extra['step']})\n"
        f"evaluate it with:\n  {Path(sys.executable).name} training/evaluate.py --weights {product} "
        f"--dataset {source.dataset}{place}"
    )


def _check_data(configuration: Configuration) -> None:
    """Loads every sample of every source once; raises DatasetError if any cannot be."""
    seen = []
    for section in (configuration.data.train, configuration.data.validation):
        for name, source in section.items():
            place = (source.dataset, source.root, source.split)
            if source.dataset == "synthetic" or place in seen:
                continue  # rendered, so there is nothing to be wrong; or the same files again
            seen.append(place)
            print(f"checking {name}", flush=True)
            report = check_dataset(open_source(configuration, source), workers=configuration.data.workers)
            report.print()
            if not report.ok:
                raise DatasetError(
                    f"{name} has {len(report.problems)} samples that cannot be loaded; the first one: "
                    f"{report.problems[0]}"
                )


def _resume_command(arguments: list[str]) -> str:
    kept = list(arguments)
    if "--resume" in kept:
        where = kept.index("--resume")
        del kept[where : where + 2]
    kept = [argument for argument in kept if argument not in ("--overwrite", "--check")]
    return shlex.join([Path(sys.executable).name, "training/train.py", *kept, "--resume", "last"])


def quiet_lightning() -> None:
    """Silences advice that does not apply here."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", ".*does not have many workers.*")
    warnings.filterwarnings("ignore", ".*decoding and encoding capabilities of TorchVision are deprecated.*")
    warnings.filterwarnings("ignore", ".*smaller than the logging interval.*")
    warnings.filterwarnings("ignore", ".*in eval mode at the start of training.*")
    warnings.filterwarnings("ignore", ".*isinstance.treespec, LeafSpec.*")


def _rank() -> int:
    """As torchrun says, or Lightning, which starts the processes of one machine itself."""
    return int(os.environ.get("RANK", os.environ.get("LOCAL_RANK", 0)))


if __name__ == "__main__":
    sys.exit(main())
