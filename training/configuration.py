"""The configuration of a training run: typed dataclasses, read from YAML, overridden on the command line.

Every field of every section is a plain value with a type; a wrong key names the closest known one, a wrong
value says what was expected, so a run never starts with a setting that was silently not understood.
`load("config/training/default.yaml", ["schedule.steps=100", "data.roots.cityscapes=/data"])`.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
import types
import typing
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from training.data.augmentation import AugmentationOptions
from training.learning.losses import LossOptions


class ConfigurationError(ValueError):
    """A setting that does not exist, has the wrong type, or contradicts another one."""


@dataclass(frozen=True)
class NetworkConfig:
    """Which network is trained.

    Attributes:
        name: one of `sfi_ros.network.zoo.NAMES`.
        mpi_position: "image", "block2", "block4" or "logits" (Table III of the paper).
        fill: "mpi", or "zero" for naive blacking out (Table IV of the paper).
        mask_source: "predicted", or "given": the true foreground mask is the input of MPI.
        foreground_classes: number of foreground classes; the loss is written for 1.
        pretrained: null, "imagenet" (torchvision downloads it), or a .safetensors file with torchvision keys.
        start_from: a product checkpoint (.safetensors of this project) whose weights training goes on from, for
            one's own data; null starts anew.
        input_height: height of the network's input in pixels, stored in the product checkpoint.
        freeze_batch_norm: keep batch normalisation in evaluation mode (running statistics are used, not updated).
        dropout: overrides the dropout probability everywhere; null keeps the network's own.
    """

    name: str = "fast-mobilenetv2"
    mpi_position: str = "block2"
    fill: str = "mpi"
    mask_source: str = "predicted"
    foreground_classes: int = 1
    pretrained: str | None = None
    start_from: str | None = None
    input_height: int = 256
    freeze_batch_norm: bool = False
    dropout: float | None = None


@dataclass(frozen=True)
class SourceConfig:
    """One dataset, for training or validation.

    Attributes:
        dataset: "cityscapes", "kitti", "folder" or "synthetic".
        root: its folder; null takes `data.roots[dataset]`.
        split: of Cityscapes.
        share: of every batch, relative to the other training sources.
        pasted: training: share of the samples that get foreground pasted from other images of the set.
            Validation: 1 pastes onto every image, 0 onto none; then a Cityscapes that has `gt_manual/<split>` is
            measured on its manually annotated images.
        limit: use at most this many images, evenly spread over the set; null uses all.
        drives, frames, seed: of the synthetic street: this many drives of this many frames, from this seed on.
    """

    dataset: Literal["cityscapes", "kitti", "folder", "synthetic"] = "cityscapes"
    root: str | None = None
    split: str = "train"
    share: float = 1.0
    pasted: float = 0.0
    limit: int | None = None
    drives: int = 8
    frames: int = 100
    seed: int = 0


@dataclass(frozen=True)
class DataConfig:
    """What is trained and validated on.

    Attributes:
        roots: dataset kind -> folder, for the sources that name no root of their own.
        train: name -> source; every batch mixes them by their shares.
        validation: name -> source. The first one chooses the best checkpoint.
        batch_size: of one optimizer step, over all devices and accumulated batches together.
        accumulate: the batch is computed in this many parts, one after the other.
        true_background: where the true background behind an object is known (pasted, synthetic), train on it.
        workers: processes that prepare samples, per device; null chooses by the machine.
        validation_batch_size: images per validation batch and device.
        cache: "ram" keeps every image decoded in memory that the workers share; "none" reads it every time. The
            training is the same.
        cache_gigabytes: the most that this takes, in each training process; what does not fit is read every time.
        augment_on: "cpu": sample by sample in the workers; "device": a batch at a time where the network is; "auto": on
            a GPU. The same is drawn for every sample; results differ by rounding and in the pattern of noise.
    """

    roots: dict[str, str] = field(default_factory=dict)
    train: dict[str, SourceConfig] = field(default_factory=dict)
    validation: dict[str, SourceConfig] = field(default_factory=dict)
    batch_size: int = 8
    accumulate: int = 1
    true_background: bool = True
    workers: int | None = None
    validation_batch_size: int = 4
    cache: Literal["none", "ram"] = "none"
    cache_gigabytes: float = 8.0
    augment_on: Literal["auto", "cpu", "device"] = "auto"


@dataclass(frozen=True)
class FakeMaskConfig:
    """Random rectangles added to the foreground mask right before MPI.

    Attributes:
        count: rectangles per image; 0 trains without fake masks.
        sizes: bounds of a rectangle's height and width, as a share of the image's.
    """

    count: int = 3
    sizes: tuple[float, float] = (0.1, 0.4)


@dataclass(frozen=True)
class OptimizerConfig:
    """How the weights move.

    Attributes:
        name: "adam" or "adamw".
        encoder_rate: learning rate of the pretrained encoder.
        head_rate: learning rate of everything else.
        betas: of Adam.
        weight_decay: of Adam (L2) or AdamW (decoupled).
        decay_vectors: decay biases and normalisation parameters too.
        clip_norm: largest gradient norm; null does not clip.
        ema_decay: of the moving average of weights that is validated and exported; 0 averages nothing.
    """

    name: Literal["adam", "adamw"] = "adamw"
    encoder_rate: float = 2e-4
    head_rate: float = 8e-4
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.01
    decay_vectors: bool = False
    clip_norm: float | None = 2.0
    ema_decay: float = 0.0


@dataclass(frozen=True)
class ScheduleConfig:
    """How long, and how the learning rate falls.

    Attributes:
        steps: optimizer steps; null computes them from `epochs`.
        epochs: passes over the largest training source's share; used when `steps` is null.
        validate_every: steps between validations; null means an epoch (or the whole run, if that is shorter).
        decay: "polynomial", (1 - step/steps)^power; "staircase", x0.1 every `staircase_epochs`; or "constant".
        power: of the polynomial decay.
        staircase_epochs: epochs between two falls of the staircase.
        warmup_steps: steps over which the rate rises linearly from zero.
    """

    steps: int | None = None
    epochs: int | None = None
    validate_every: int | None = None
    decay: Literal["polynomial", "staircase", "constant"] = "polynomial"
    power: float = 0.9
    staircase_epochs: int = 20
    warmup_steps: int = 0


@dataclass(frozen=True)
class RunConfig:
    """Where and how it runs.

    Attributes:
        accelerator: of Lightning: "auto", "cpu", "gpu", ...
        devices: per machine; null uses all GPUs, or one CPU process (torchrun decides where it is used).
        nodes: machines.
        precision: "auto" (bf16 on a GPU that has it, else float32), "32", "bf16" or "16".
        compile: let torch.compile generate the code of the network's training pass; it takes a minute at the start.
        deterministic: take reproducible operations on a GPU where PyTorch has them, and warn where it has none, as for
            the pyramid's pooling (slower; a CPU always is reproducible).
        checkpoint_every: steps between two saves of last.ckpt; null saves only at validations.
        log_every: steps between two lines of the training log.
        pictures: validation images drawn per validation into TensorBoard.
        loggers: any of "csv" and "tensorboard".
        monitor: validation score that chooses the best checkpoint.
        export: "best" or "last": which weights become the product checkpoint.
        half: store the product checkpoint in float16.
        training_data: the note on training data and its licence in the product checkpoint.
    """

    accelerator: str = "auto"
    devices: int | None = None
    nodes: int = 1
    precision: Literal["auto", "32", "bf16", "16"] = "auto"
    compile: bool = False
    deterministic: bool = False
    checkpoint_every: int | None = 200
    log_every: int = 10
    pictures: int = 4
    loggers: tuple[str, ...] = ("csv", "tensorboard")
    monitor: str = "foreground_region_miou"
    export: Literal["best", "last"] = "best"
    half: bool = True
    training_data: str = ""


@dataclass(frozen=True)
class Configuration:
    """Everything that decides a run. `output` is the run's folder; `seed` decides every random number."""

    output: str = "out/training/run"
    seed: int = 0
    network: NetworkConfig = field(default_factory=NetworkConfig)
    data: DataConfig = field(default_factory=DataConfig)
    augmentation: AugmentationOptions = field(default_factory=AugmentationOptions)
    fake_masks: FakeMaskConfig = field(default_factory=FakeMaskConfig)
    losses: LossOptions = field(default_factory=LossOptions)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    run: RunConfig = field(default_factory=RunConfig)


def load(path: str | Path, overrides: Iterable[str] = ()) -> Configuration:
    """Reads a YAML file and applies `section.key=value` overrides, in order; values are YAML too.

    `section.name=null` removes an entry of a mapping (`data.train.synthetic=null`).

    Raises:
        ConfigurationError: the file cannot be read, or a key or value is not understood.
    """
    path = Path(path)
    try:
        tree = yaml.safe_load(path.read_text()) or {}
    except OSError as error:
        raise ConfigurationError(f"cannot read the configuration {path}: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise ConfigurationError(f"{path} is not valid YAML: {error}") from error
    if not isinstance(tree, dict):
        raise ConfigurationError(f"{path} must hold a mapping of sections, found {type(tree).__name__}")
    for override in overrides:
        _apply(tree, override)
    configuration = _build(Configuration, tree, "")
    _check(configuration)
    return configuration


def as_dictionary(configuration: Configuration) -> dict[str, Any]:
    """The configuration as plain mappings, lists and scalars, for YAML, JSON and checkpoints."""
    return json.loads(json.dumps(dataclasses.asdict(configuration)))


def from_dictionary(tree: dict[str, Any]) -> Configuration:
    """The inverse of `as_dictionary`.

    Raises:
        ConfigurationError: a key or value is not understood.
    """
    return _build(Configuration, tree, "")


def fingerprint(configuration: Configuration) -> str:
    """A short hash of everything that influences the result (the output folder and the cache do not)."""
    tree = as_dictionary(configuration)
    tree.pop("output")
    for key in ("cache", "cache_gigabytes"):
        tree["data"].pop(key)
    return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()[:16]


def _apply(tree: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise ConfigurationError(f"override {override!r} must read section.key=value")
    *parents, last = key.split(".")
    for parent in parents:
        child = tree.get(parent)
        if child is None:
            child = tree[parent] = {}
        if not isinstance(child, dict):
            raise ConfigurationError(f"override {override!r}: {parent} is a value, not a section")
        tree = child
    try:
        tree[last] = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigurationError(f"override {override!r}: the value is not valid YAML: {error}") from error


def _build(kind: type, tree: Any, where: str) -> Any:
    if not isinstance(tree, dict):
        raise ConfigurationError(f"{where or 'the configuration'} must be a section, got {tree!r}")
    hints = typing.get_type_hints(kind)
    for key in tree:
        if key not in hints:
            closest = difflib.get_close_matches(str(key), hints, n=1, cutoff=0.0)
            raise ConfigurationError(
                f"unknown key {_join(where, key)!r}: did you mean {_join(where, closest[0])!r}? "
                f"(known here: {', '.join(hints)})"
            )
    return kind(**{key: _convert(hints[key], value, _join(where, key)) for key, value in tree.items()})


def _convert(kind: Any, value: Any, where: str) -> Any:
    """`value` as `kind`: dataclasses, optionals, literals, dicts, tuples and scalars."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind):
        return _build(typing.cast(type, kind), {} if value is None else value, where)
    if origin in (typing.Union, types.UnionType):
        if value is None:
            return None
        return _convert(next(option for option in arguments if option is not type(None)), value, where)
    if origin is Literal:
        choice = str(value) if all(isinstance(option, str) for option in arguments) else value
        if choice in arguments:
            return choice
        raise ConfigurationError(f"{where} must be one of {', '.join(map(str, arguments))}, got {value!r}")
    if origin is dict:
        if not isinstance(value, dict | None):
            raise ConfigurationError(f"{where} must be a mapping, got {value!r}")
        entries = {str(key): entry for key, entry in (value or {}).items() if entry is not None}
        return {key: _convert(arguments[1], entry, _join(where, key)) for key, entry in entries.items()}
    if origin is tuple:
        return _convert_tuple(arguments, value, where)
    return _scalar(kind, value, where)


def _convert_tuple(arguments: tuple[Any, ...], value: Any, where: str) -> tuple[Any, ...]:
    if not isinstance(value, (list, tuple)):
        raise ConfigurationError(f"{where} must be a list, got {value!r}")
    if arguments[-1] is Ellipsis:
        arguments = (arguments[0],) * len(value)
    if len(value) != len(arguments):
        raise ConfigurationError(f"{where} must hold {len(arguments)} values, got {value!r}")
    return tuple(_convert(kind, entry, where) for kind, entry in zip(arguments, value, strict=True))


def _scalar(kind: type, value: Any, where: str) -> Any:
    if kind is float and isinstance(value, (int, float, str)) and not isinstance(value, bool):
        try:
            return float(value)  # YAML reads 1e-4 as a string
        except ValueError:
            pass
    elif kind is str and isinstance(value, (str, int, float)) and not isinstance(value, bool):
        return str(value)
    elif type(value) is kind:
        return value
    raise ConfigurationError(f"{where} must be {_KIND_NAMES[kind]}, got {value!r}")


_KIND_NAMES = {float: "a number", int: "a whole number", bool: "true or false", str: "a text"}


def _check(configuration: Configuration) -> None:
    """Contradictions that would otherwise show after minutes."""
    data, schedule = configuration.data, configuration.schedule
    if not data.train:
        raise ConfigurationError("data.train names no source: give at least one dataset to train on")
    if not data.validation:
        raise ConfigurationError("data.validation names no source: give at least one dataset to validate on")
    if (schedule.steps is None) == (schedule.epochs is None):
        raise ConfigurationError("give exactly one of schedule.steps and schedule.epochs; set the other to null")
    for section, sources in (("train", data.train), ("validation", data.validation)):
        for name, source in sources.items():
            if source.dataset != "synthetic" and not (source.root or data.roots.get(source.dataset)):
                raise ConfigurationError(
                    f"data.{section}.{name} has no folder: set data.{section}.{name}.root "
                    f"or data.roots.{source.dataset}"
                )
    for name, source in data.train.items():
        if source.dataset == "kitti" and "kitti_dev" in str(source.root or data.roots["kitti"]):
            raise ConfigurationError(f"data.train.{name} is kitti_dev, which is for testing only")
    if data.batch_size % data.accumulate:
        raise ConfigurationError(
            f"data.batch_size={data.batch_size} cannot be split into data.accumulate={data.accumulate} parts"
        )
    if data.cache_gigabytes <= 0:
        raise ConfigurationError("data.cache_gigabytes must be positive; data.cache=none keeps nothing in memory")
    if configuration.network.foreground_classes != 1:
        raise ConfigurationError("network.foreground_classes: training is written for one foreground class")
    if configuration.run.log_every < 1:
        raise ConfigurationError("run.log_every must be at least 1; run.loggers=[] logs nothing")
    if configuration.run.devices is not None and configuration.run.devices < 1:
        raise ConfigurationError("run.devices must be at least 1")


def _join(where: str, key: Any) -> str:
    return f"{where}.{key}" if where else str(key)
