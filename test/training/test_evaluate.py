"""Evaluation from the command line: scores that match a recount, files with the promised keys, a report that
stands alone."""

from __future__ import annotations

import base64
import csv
import hashlib
import json
import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from test_datasets import kitti_tree
from torch import Tensor, nn
from torchvision.io import ImageReadMode, decode_image, write_png

from sfi_ros.network import checkpoint, zoo
from sfi_ros.network.outputs import SceneLogits
from training import evaluate as evaluation_tool
from training.data.datasets import Kitti
from training.evaluate import main
from training.measuring.evaluation import ImageScore, Runner, evaluate
from training.measuring.pictures import color_errors, outline
from training.measuring.report import choose_images

SMALL = "fast-mobilenetv2"
CAR, ROAD, SKY = 26, 7, 23


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained small network."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    checkpoint.save(path, zoo.build(SMALL), input_height=32, training_data="nothing")
    return path


@pytest.fixture
def kitti(tmp_path: Path) -> Path:
    return kitti_tree(tmp_path / "kitti")


class Oracle(nn.Module):
    """Knows road below, other above; calls bright pixels foreground; remembers what it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.given: list[Tensor | None] = []

    def forward(self, images: Tensor, given_foreground: Tensor | None = None) -> SceneLogits:
        self.given.append(given_foreground)
        lower = torch.arange(images.shape[2])[:, None] >= images.shape[2] // 2
        background = torch.zeros_like(images)
        background[:, 0] = torch.where(lower, 9.0, -9.0)
        background[:, 2] = torch.where(lower, -9.0, 9.0)
        return SceneLogits(background, torch.where(images.mean(1, keepdim=True) > 0, 9.0, -9.0))


def half_street(root: Path, wrong_rows: tuple[int, ...]) -> Path:
    """32x64 images, sky above road, with a white 16x16 car; the truth behind it is wrong for the oracle in the
    lowest of its rows, as many as `wrong_rows` says for each image."""
    for number, wrong in enumerate(wrong_rows):
        labels = torch.full((1, 32, 64), SKY, dtype=torch.uint8)
        labels[:, 16:] = ROAD
        truth = torch.where(labels == ROAD, 0, 2).byte()
        labels[:, 8:24, 20:36] = CAR
        truth[:, 24 - wrong : 24, 20:36] = 1
        photo = torch.zeros(3, 32, 64, dtype=torch.uint8)
        photo[:, 8:24, 20:36] = 255
        content = {"training/image_2": photo, "training/semantic": labels, "gt_manual": truth}
        for folder, picture in content.items():
            (root / folder).mkdir(parents=True, exist_ok=True)
            write_png(picture, str(root / folder / f"{number:06d}_10.png"))
    return root


def test_scores_of_an_oracle(tmp_path: Path) -> None:
    dataset = Kitti(half_street(tmp_path, (0, 4)), height=32)
    result = evaluate(Runner(Oracle()), dataset, batch_size=2, category_names=dataset.category_names, quiet=True)
    scores = result.scores
    assert scores["foreground_mask_iou"] == 1.0
    # Behind the two cars: 2 x 128 pixels other, 128 + 64 road, 64 sidewalk that the oracle takes for road.
    assert scores["foreground_region"]["iou"] == {"road": 192 / 256, "sidewalk": 0.0, "other": 1.0}
    assert scores["foreground_region_miou"] == pytest.approx((192 / 256 + 0 + 1) / 3)
    assert scores["all_region"]["pixels"] == 2 * 32 * 64
    assert scores["all_region_miou"] == pytest.approx(((2048 - 64) / 2048 + 0 + 1) / 3)
    assert scores["by_category"]["car"]["accuracy"] == pytest.approx(1 - 64 / 512)
    assert [image.foreground_region_accuracy for image in result.images] == [1.0, 0.75]
    assert [image.all_region_accuracy for image in result.images] == [1.0, 1 - 64 / 2048]
    assert [image.foreground_mask_iou for image in result.images] == [1.0, 1.0]


def test_mask_source_given_hands_the_true_mask_over(tmp_path: Path) -> None:
    dataset = Kitti(half_street(tmp_path, (0,)), height=32)
    predicted, given = Oracle(), Oracle()
    evaluate(Runner(predicted), dataset, quiet=True)
    evaluate(Runner(given, mask_source="given"), dataset, quiet=True)
    assert predicted.given == [None]
    assert given.given[0].shape == (1, 1, 32, 64)
    assert torch.equal(given.given[0][0, 0], dataset[0].foreground)


@pytest.mark.parametrize("batch_size", [2, 3])
def test_batches_change_nothing_and_take_images_of_equal_size(kitti: Path, batch_size: int) -> None:
    half_street(kitti, (0, 1, 2, 3, 4))
    kitti_tree(kitti)  # puts images of two other sizes in the place of the first two
    dataset = Kitti(kitti, height=32)
    assert len({sample.image.shape for sample in dataset}) == 3
    one = evaluate(Runner(Oracle()), dataset, quiet=True)
    several = evaluate(Runner(Oracle()), dataset, batch_size=batch_size, quiet=True)
    for key in ("all_region", "foreground_region", "foreground_mask", "by_distance", "by_size"):
        assert json.dumps(several.scores[key]) == json.dumps(one.scores[key])  # nan included
    assert [image.name for image in several.images] == [image.name for image in one.images]


def test_command_line_writes_json_csv_and_a_report(
    weights: Path, kitti: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    files = {name: out / f"scores.{name}" for name in ("json", "csv", "html")}
    arguments = ["--weights", str(weights), "--dataset", "kitti", "--root", str(kitti), "--device", "cpu", "--quiet"]
    arguments += ["--json", str(files["json"]), "--csv", str(files["csv"]), "--report", str(files["html"])]
    assert main(arguments) == 0
    assert "foreground-region mIoU" in capsys.readouterr().out

    scores = json.loads(files["json"].read_text())
    for key in ("foreground_region_miou", "all_region_miou", "foreground_mask_iou"):
        assert 0 <= scores[key] <= 1
    assert scores["foreground_region_miou"] == scores["foreground_region"]["miou"]
    assert set(scores["foreground_region"]["iou"]) == {"road", "sidewalk", "other"}
    assert set(scores["by_distance"]) >= {"1-2 px", "33+ px"}
    assert len(scores["calibration"]["foreground_region"]["bins"]) == 15
    assert scores["speed"]["network_ms_per_image_median"] > 0
    assert scores["dataset"] == {
        "name": "kitti",
        "root": str(kitti),
        "split": None,
        "pasted": False,
        "seed": None,
        "height": 32,
        "images": 2,
        "images_in_set": 2,
    }
    assert scores["weights"]["network"] == SMALL
    assert scores["weights"]["sha256"] == hashlib.sha256(weights.read_bytes()).hexdigest()[:16]
    assert scores["command"].startswith("python training/evaluate.py --weights ")

    with files["csv"].open() as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == ["000000_10", "000001_10"]
    assert 0 <= float(rows[0]["foreground_region_accuracy"]) <= 1
    check_stands_alone(files["html"].read_text(), pictures=4 + 2 * 5)


def check_stands_alone(page: str, pictures: int) -> None:
    """The page refers to nothing outside itself, and every picture in it can be decoded."""
    embedded = re.findall(r"src='data:image/(?:png|jpeg);base64,([^']+)'", page)
    assert len(embedded) == pictures
    shell = re.sub(r"base64,[^']+", "", page)
    assert not re.search(r"https?:|//[a-z]|@import|<script|<link|url\(", shell)
    assert shell.count("src=") == pictures
    for data in embedded:
        content = torch.frombuffer(bytearray(base64.b64decode(data)), dtype=torch.uint8)
        assert decode_image(content, mode=ImageReadMode.RGB).shape[0] == 3


def test_several_checkpoints_are_compared(weights: Path, kitti: Path, tmp_path: Path) -> None:
    other = tmp_path / "other" / weights.name
    torch.manual_seed(1)
    checkpoint.save(other, zoo.build(SMALL), input_height=48)
    report, scores = tmp_path / "both.html", tmp_path / "both.json"
    arguments = ["--weights", str(weights), str(other), "--dataset", "kitti", "--root", str(kitti), "--quiet"]
    assert main([*arguments, "--device", "cpu", "--json", str(scores), "--report", str(report)]) == 0
    results = json.loads(scores.read_text())["results"]
    assert [result["dataset"]["height"] for result in results] == [32, 48]
    assert results[0]["weights"]["sha256"] != results[1]["weights"]["sha256"]
    page = report.read_text()
    check_stands_alone(page, pictures=4 + 2 * 8)
    assert f"{weights.parent.name}/small" in page and "other/small" in page


def test_pasted_limited_synthetic(weights: Path, tmp_path: Path) -> None:
    pytest.importorskip("cv2")
    scores = tmp_path / "scores.json"
    arguments = ["--weights", str(weights), "--dataset", "synthetic", "--pasted", "--limit", "3", "--quiet"]
    assert main([*arguments, "--device", "cpu", "--batch", "2", "--precision", "bfloat16", "--json", str(scores)]) == 0
    found = json.loads(scores.read_text())
    assert found["dataset"]["images"] == 3 and found["dataset"]["images_in_set"] > 3
    assert found["dataset"]["split"] == "val" and found["dataset"]["pasted"]
    assert found["foreground_region"]["pixels"] > 0
    assert found["speed"]["precision"] == "bfloat16"


def test_a_set_without_truth_has_no_foreground_region_score(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, scores = kitti_tree(tmp_path / "kitti", manual=False), tmp_path / "scores.json"
    report = tmp_path / "report.html"
    arguments = ["--weights", str(weights), "--dataset", "kitti", "--root", str(root), "--device", "cpu", "--quiet"]
    assert main([*arguments, "--json", str(scores), "--report", str(report)]) == 0
    assert json.loads(scores.read_text())["foreground_region_miou"] is None
    assert "add --pasted" in capsys.readouterr().out
    assert "no truth" in report.read_text()


@pytest.mark.parametrize("option", ["--json", "--csv", "--report"])
def test_where_nothing_can_be_written_is_said_before_anything_is_measured(
    weights: Path, kitti: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str
) -> None:
    common = ["--weights", str(weights), "--dataset", "kitti", "--device", "cpu", "--quiet", "--root", str(kitti)]
    for place, reason in ((kitti, "it is a folder"), (weights / "x", "File exists|Not a directory")):
        assert main([*common, option, str(place)]) == 1
        said = capsys.readouterr()
        assert re.search(f"error: .* cannot be written: ({reason})", said.err) and not said.out


def test_a_device_that_is_not_there_is_said(kitti: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for device in ("banana", "cuda:77"):
        with pytest.raises(SystemExit):
            main(["--weights", "x", "--dataset", "kitti", "--root", str(kitti), "--device", device])
        assert f"--device {device} cannot be used: " in capsys.readouterr().err


def test_errors_are_one_line_that_names_the_file(
    weights: Path, kitti: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = ["--dataset", "kitti", "--device", "cpu", "--quiet"]
    assert main(["--weights", str(weights), *common, "--root", str(tmp_path / "gone")]) == 1
    assert "gone does not exist: root must hold" in capsys.readouterr().err
    assert main(["--weights", str(tmp_path / "no.safetensors"), *common, "--root", str(kitti)]) == 1
    assert "no.safetensors do not exist" in capsys.readouterr().err
    given = tmp_path / "given.safetensors"
    checkpoint.save(given, zoo.build(SMALL, mask_source="given"), input_height=32)
    assert main(["--weights", str(given), *common, "--root", str(kitti)]) == 1
    assert "add --mask-source given" in capsys.readouterr().err
    assert main(["--weights", str(given), *common, "--root", str(kitti), "--mask-source", "given"]) == 0
    with pytest.raises(SystemExit):
        main(["--weights", str(weights), *common, "--root", str(kitti), "--limit", "0"])
    assert "--limit must be 1 or more" in capsys.readouterr().err


def scored(index: int, accuracy: float, pixels: int = 5000) -> ImageScore:
    return ImageScore(index, str(index), accuracy, accuracy, pixels, accuracy / 2, 1.0)


def test_images_are_chosen_by_what_is_behind_objects() -> None:
    images = [scored(number, number / 20) for number in range(20)]
    images.append(scored(20, 1.0, pixels=3))  # right by chance on three pixels
    images.append(scored(21, math.nan, pixels=0))
    chosen = {title: [image.index for image in group] for title, group in choose_images(images).items()}
    assert chosen == {"Best": [19, 18, 17], "Median": [11, 10, 9], "Worst": [0, 1, 2]}


@pytest.mark.parametrize("count", [1, 2, 3, 4, 8])
def test_few_images_are_shown_once_each(count: int) -> None:
    groups = choose_images([scored(number, 0.1 * number) for number in range(count)])
    indices = [image.index for group in groups.values() for image in group]
    assert len(indices) == len(set(indices)) >= min(count, 3)


def test_without_truth_behind_objects_all_regions_decide() -> None:
    images = [replace(scored(i, math.nan, pixels=0), all_region_accuracy=i / 10) for i in range(9)]
    assert [image.index for image in choose_images(images)["Best"]] == [8, 7, 6]


def test_error_colours_say_what_they_mean() -> None:
    photo = np.zeros((1, 4, 3), np.uint8)
    truth = np.array([[0, 1, 1, 255]], np.uint8)
    foreground = np.array([[1, 1, 0, 1]], np.uint8)
    colors = color_errors(photo, np.zeros((1, 4), np.uint8), truth, foreground)
    right, wrong, elsewhere, unknown = colors[0].tolist()
    assert right[1] > right[0]  # green
    assert wrong[0] > 2 * wrong[1]  # red
    assert elsewhere[0] > elsewhere[1] > elsewhere[2]  # pale orange
    assert unknown[0] == unknown[1] == unknown[2]  # grey


def test_outline_stays_inside_the_mask() -> None:
    mask = np.zeros((7, 9), np.uint8)
    mask[1:6, 2:8] = 1
    drawn = outline(np.zeros((7, 9, 3), np.uint8), mask)[..., 0] == 255
    inner = np.zeros((7, 9), bool)
    inner[2:5, 3:7] = True
    assert np.array_equal(drawn, (mask > 0) & ~inner)


def test_labels_tell_files_of_one_name_apart() -> None:
    labels = evaluation_tool._labels
    assert labels([Path("a/x.safetensors"), Path("b/y.safetensors")]) == ["x", "y"]
    assert labels([Path("a/x.safetensors"), Path("b/x.safetensors")]) == ["a/x", "b/x"]
