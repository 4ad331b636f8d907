"""A soup is the mean of weights, takes in what raises the score and nothing else, and says what it was made of."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from test_datasets import cityscapes_tree, stripes
from torchvision.io import write_png

from sfi_ros.network import checkpoint, zoo
from training import evaluate
from training.learning import soup
from training.learning.soup import Ingredient, greedy_soup, mean_network

NAME, HEIGHT = "fast-mobilenetv2", 32


def weights(path: Path, seed: int = 0, **options: int) -> Path:
    torch.manual_seed(seed)
    network = zoo.build(NAME, **options)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1)
    checkpoint.save(path, network, input_height=HEIGHT, training_data=f"street {seed}", dtype=torch.float16)
    return path


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("weights")
    return [weights(folder / f"{seed}.safetensors", seed) for seed in range(3)]


@pytest.fixture(scope="module")
def cityscapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = cityscapes_tree(tmp_path_factory.mktemp("cityscapes"))
    for folder in ("leftImg8bit", "gtFine"):
        (root / folder / "train").rename(root / folder / "val")
    truth = root / "gt_manual" / "val" / "aachen"
    truth.mkdir(parents=True)
    for number in range(2):
        labels = stripes(torch.tensor([0, 1, 2, 2, 0, 1, 2, 0], dtype=torch.uint8), HEIGHT, 2 * HEIGHT)
        write_png(labels, str(truth / f"aachen_{number:06d}_000019_gt_manual.png"))
    return root


def test_the_mean_is_that_of_every_weight_and_statistic(files: list[Path]) -> None:
    mean = mean_network([Ingredient.read(path) for path in files]).state_dict()
    states = [checkpoint.load(path).network.state_dict() for path in files]
    for name, tensor in mean.items():
        expected = sum(state[name].double() for state in states) / 3
        torch.testing.assert_close(tensor.double(), expected, rtol=1e-3, atol=1e-7)
        assert torch.equal(tensor, tensor.half().to(tensor.dtype)), "what is measured is what is written"
    assert any("running_mean" in name for name in mean)


def test_what_raises_the_score_is_stirred_in_and_nothing_else(files: list[Path], capsys: pytest.CaptureFixture) -> None:
    """The second best spoils it; the third does not, though it is worse alone."""
    bad, best, good = (Ingredient.read(path) for path in files)
    known = {"1": 0.6, "0": 0.5, "2": 0.4, "1 0": 0.59, "1 2": 0.61}

    def tasting(parts: list[Ingredient]) -> dict[str, float]:
        return {"mean": known[" ".join(part.path.stem for part in parts)]}

    assert greedy_soup([bad, best, good], tasting, "mean") == [best, good]
    assert [line.split()[1] for line in capsys.readouterr().out.splitlines()] == ["begins", "not", "with"]


@pytest.mark.parametrize("score", ["mean", "foreground_mask_iou"])
def test_the_command_writes_weights_with_the_score_that_it_says(
    files: list[Path], cityscapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture, score: str
) -> None:
    output = tmp_path / "soup.safetensors"
    command = [*map(str, files), str(files[0]), "-o", str(output), "--root", str(cityscapes), "--score", score]
    assert soup.main(command) == 0
    said = capsys.readouterr().out
    assert "of 3 files" in said, "one that is named twice counts once"
    loaded = checkpoint.load(output)
    made_of = [entry["file"] for entry in loaded.metadata.extra["mean_of"]]
    assert set(made_of) <= set(map(str, files)) and loaded.metadata.training_data.startswith("street ")
    expected = mean_network([Ingredient.read(Path(name)) for name in made_of]).state_dict()
    for name, tensor in loaded.network.state_dict().items():
        assert torch.equal(tensor, expected[name])

    place = ["--dataset", "cityscapes", "--root", str(cityscapes), "--quiet", "--json", str(tmp_path / "again.json")]
    precision = "bfloat16" if soup.multiplies_bfloat16() else "float32"
    assert evaluate.main(["--weights", str(output), *place, "--precision", precision, "--batch", "2"]) == 0
    again = soup.json.loads((tmp_path / "again.json").read_text())
    for name, value in loaded.metadata.scores.items():
        assert again[name.removeprefix("cityscapes/")] == pytest.approx(value, abs=1e-6)


def test_scores_are_measured_once(
    files: list[Path], cityscapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["-o", str(tmp_path / "soup.safetensors"), "--root", str(cityscapes)]
    measured = []

    def counted(*arguments, original=soup.evaluate, **options):
        measured.append(1)
        return original(*arguments, **options)

    monkeypatch.setattr(soup, "evaluate", counted)
    assert soup.main([*map(str, files[:2]), *command]) == 0
    first = (tmp_path / "soup.safetensors").read_bytes()
    assert len(measured) == 3
    assert soup.main([*map(str, files[:2]), *command]) == 0
    assert len(measured) == 3 and (tmp_path / "soup.safetensors").read_bytes() == first


def test_what_does_not_mix_or_cannot_be_measured_is_refused(
    files: list[Path], cityscapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    other = weights(tmp_path / "kinds.safetensors", foreground_classes=3)
    command = ["-o", str(tmp_path / "soup.safetensors"), "--root"]
    assert soup.main([str(files[0]), str(other), *command, str(cityscapes)]) == 2
    assert f"{files[0]} and {other} do not mix" in capsys.readouterr().err
    bare = cityscapes_tree(tmp_path / "bare")
    for folder in ("leftImg8bit", "gtFine"):
        (bare / folder / "train").rename(bare / folder / "val")
    assert soup.main([str(files[0]), *command, str(bare)]) == 2
    assert "gt_manual/val is missing" in capsys.readouterr().err
    assert soup.main([str(tmp_path / "none.safetensors"), *command, str(cityscapes)]) == 2
    assert "none.safetensors" in capsys.readouterr().err
