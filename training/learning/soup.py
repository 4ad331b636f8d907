"""A greedy soup: one network with the mean weights of several runs that began from the same ones.

    python -m training.learning.soup out/runs/*/model.safetensors -o out/soup.safetensors --root DATA/cityscapes

Files are sorted by their score on the manually annotated images of Cityscapes val. The best one is the soup; each of
the others is stirred in if the score of the mean rises. Scores are remembered in a file, so the same command with one
file more only measures what is new. Nothing is trained; statistics of batch normalisation are averaged as weights are.
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import json
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch

from sfi_ros.errors import SfiError
from sfi_ros.files import require_writable, write_json
from sfi_ros.network import checkpoint
from sfi_ros.network.bfloat16 import multiplies_bfloat16
from sfi_ros.network.checkpoint import Checkpoint, CheckpointError
from sfi_ros.network.scene_network import SceneNetwork
from training.data.datasets import DatasetError, open_dataset
from training.data.sample import Sample
from training.measuring.evaluation import Runner, evaluate

SCORES: Final = ("foreground_region_miou", "all_region_miou", "foreground_mask_iou")
"""What is measured. Also to be chosen by: `mean`, that of the three."""


@dataclass(frozen=True)
class Ingredient:
    """A file of weights: where it is, a hash of its content, and the network in it."""

    path: Path
    digest: str
    checkpoint: Checkpoint

    @classmethod
    def read(cls, path: Path) -> Ingredient:
        """Load a file; raises as `checkpoint.load` does."""
        loaded = checkpoint.load(path)
        return cls(path, hashlib.sha256(path.read_bytes()).hexdigest()[:16], loaded)


class Tasting:
    """Scores of mean weights on a set, each measured once.

    Args:
        samples: of the set.
        setting: names everything else that scores depend on.
        memory: file of scores, made if it is not there.
        precision: see `Runner`.
    """

    def __init__(self, samples: Sequence[Sample], setting: str, memory: Path, precision: str = "float32"):
        self.samples, self.setting, self.memory, self.precision = samples, setting, memory, precision
        self.known = json.loads(memory.read_text()) if memory.is_file() else {}

    def __call__(self, ingredients: Sequence[Ingredient]) -> dict[str, float]:
        """Return `SCORES` and their `mean`, of the mean of some weights."""
        key = " ".join([self.setting, *(ingredient.digest for ingredient in ingredients)])
        if key not in self.known:
            runner = Runner(mean_network(ingredients), precision=self.precision)
            found = evaluate(runner, self.samples, batch_size=4, quiet=True).scores
            self.known[key] = {name: found[name] for name in SCORES}
            write_json(self.memory, self.known)
        scores = self.known[key]
        return {**scores, "mean": sum(scores.values()) / len(scores)}


def mean_network(ingredients: Sequence[Ingredient]) -> SceneNetwork:
    """Return a network with the mean of some weights, rounded to float16, in which it is written.

    Raises:
        CheckpointError: they are not all of one network.
    """
    first, *others = ingredients
    for other in others:
        one, two = first.checkpoint.metadata, other.checkpoint.metadata
        if (one.name, one.options, one.input_height) != (two.name, two.options, two.input_height):
            raise CheckpointError(
                f"{first.path} and {other.path} do not mix: {one.name} {dict(one.options)}, {one.input_height} high, "
                f"and {two.name} {dict(two.options)}, {two.input_height} high; leave one of them out"
            )
    states = [ingredient.checkpoint.network.state_dict() for ingredient in ingredients]
    mean = {
        name: torch.stack([state[name] for state in states]).mean(0).half().float()
        for name, tensor in states[0].items()
        if tensor.is_floating_point()
    }
    network = copy.deepcopy(first.checkpoint.network)
    network.load_state_dict({**states[0], **mean})
    return network


def greedy_soup(ingredients: Sequence[Ingredient], tasting: Tasting, score: str) -> list[Ingredient]:
    """Return the files whose mean is best, found one after the other; prints how.

    Args:
        ingredients: to choose from.
        tasting: what measures.
        score: which of its scores decides.
    """
    ranked = sorted(ingredients, key=lambda ingredient: tasting([ingredient])[score], reverse=True)
    soup = ranked[:1]
    best = tasting(soup)[score]
    print(f"{best:.4f}  begins with {soup[0].path}", flush=True)
    for ingredient in ranked[1:]:
        alone, found = tasting([ingredient])[score], tasting([*soup, ingredient])[score]
        print(f"{found:.4f}  {'with' if found > best else 'not'} {ingredient.path}, alone {alone:.4f}", flush=True)
        if found > best:
            soup, best = [*soup, ingredient], found
    return soup


def write_soup(soup: Sequence[Ingredient], tasting: Tasting, path: Path) -> None:
    """Write the mean of some weights as a product checkpoint that says what it was made of.

    Raises:
        WriteError, OptionError, CheckpointError: see `checkpoint.save`.
    """
    metadata = [ingredient.checkpoint.metadata for ingredient in soup]
    checkpoint.save(
        path,
        mean_network(soup),
        input_height=metadata[0].input_height,
        training_data="; ".join(dict.fromkeys(one.training_data for one in metadata if one.training_data)),
        scores={f"cityscapes/{name}": value for name, value in tasting(soup).items() if name in SCORES},
        extra={
            "mean_of": [
                {"file": str(one.path), "sha256": one.digest, "extra": dict(one.checkpoint.metadata.extra)}
                for one in soup
            ],
            "command": shlex.join(["python", "-m", "training.learning.soup", *sys.argv[1:]]),
        },
        dtype=torch.float16,
    )


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m training.learning.soup",
        description="Average the weights of runs that began from the same ones, as far as that pays.",
    )
    parser.add_argument("weights", type=Path, nargs="+", help=".safetensors checkpoints of one network")
    parser.add_argument("-o", "--output", type=Path, required=True, help="the checkpoint to write, in float16")
    parser.add_argument("--root", type=Path, required=True, help="folder of Cityscapes, with gt_manual/val")
    parser.add_argument("--score", choices=(*SCORES, "mean"), default="mean", help="what decides (default %(default)s)")
    parser.add_argument(
        "--scores", type=Path, help="file of scores measured before (default: scores.json beside OUTPUT)"
    )
    options = parser.parse_args(arguments)
    memory = options.scores or options.output.with_name("scores.json")
    precision = "bfloat16" if multiplies_bfloat16() else "float32"
    try:
        require_writable(options.output)
        require_writable(memory)
        ingredients = list({found.digest: found for found in map(Ingredient.read, options.weights)}.values())
        mean_network(ingredients)  # before hours are spent: do they mix?
        height = ingredients[0].checkpoint.metadata.input_height
        dataset = open_dataset("cityscapes", options.root, "val", height)
        if dataset.truths is None:
            raise DatasetError(f"{options.root}: gt_manual/val is missing, without which nobody knows what is best")
        samples = [dataset[index] for index in range(len(dataset))]
        setting = f"{options.root.resolve()} {len(samples)} images {height} high, {precision}:"
        tasting = Tasting(samples, setting, memory, precision)
        soup = greedy_soup(ingredients, tasting, options.score)
        write_soup(soup, tasting, options.output)
    except SfiError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    values = ", ".join(f"{name} {value:.4f}" for name, value in tasting(soup).items())
    print(f"wrote {options.output}, the mean of {len(soup)} of {len(ingredients)} files: {values}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
