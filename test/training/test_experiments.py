"""Every table of the paper runs end to end at the smallest scale, skips what is finished, and averages as it says."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import SHARED

from training import experiments, train
from training.configuration import Configuration, ConfigurationError, fingerprint
from training.data.datasets import Folder
from training.experiments import SCALES, averaged_scores, configure, folder_of, table
from training.learning.checkpoints import ScoreLog

pytestmark = pytest.mark.timeout(1200)  # a minute on an idle machine; many on a busy one
SMOKE = ("--scale", "smoke")


def printed(capsys: pytest.CaptureFixture, name: str, output: Path, *more: str) -> str:
    capsys.readouterr()
    assert experiments.main([name, *SMOKE, "--output", str(output), *more]) == 0
    return capsys.readouterr().out


def cells(text: str) -> list[list[str]]:
    """The body of the printed table."""
    return [[cell.strip() for cell in line.strip("│").split("│")] for line in text.splitlines() if line.startswith("│")]


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all tables: they share runs."""
    return tmp_path_factory.mktemp("experiments")


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "160")


def test_table_3_is_filled_and_finished_runs_are_skipped(
    output: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = printed(capsys, "table3", output)
    body = cells(text)
    assert [row[0] for row in body] == ["image", "block2", "block4", "logits"]
    for row in body:
        assert all(re.fullmatch(r"\d+\.\d", row[column]) for column in (1, 3, 5)), row
        assert row[2] == row[4] == "-", "the paper's numbers are not known for sure"
    assert "mean of the last 5 validations" in text
    assert "not comparable with the paper" in text
    assert not list(output.rglob("*.ckpt")), "the checkpoints of finished runs are large"

    monkeypatch.setattr(train, "run", lambda *_, **__: pytest.fail("trained again"))
    assert cells(printed(capsys, "table3", output)) == body


def test_table_4_shares_its_run_with_table_3(output: Path, capsys: pytest.CaptureFixture) -> None:
    before = len(list((output / "smoke").glob("*"))) if (output / "smoke").exists() else 0
    body = cells(printed(capsys, "table4", output))
    assert len(body) == 8 and len({tuple(row[:3]) for row in body}) == 8
    shared = {folder_of(configure(t, row, SCALES["smoke"], ()), output) for t in tables(3, 4) for row in t.rows}
    assert len(shared) == 11
    assert len(list((output / "smoke").glob("*"))) == (11 if before else 8)


def tables(*numbers: int) -> list[experiments.Table]:
    return [table(f"table{number}", SCALES["smoke"]) for number in numbers]


def test_tables_1_and_2_train_the_papers_networks_once(output: Path, capsys: pytest.CaptureFixture) -> None:
    first = cells(printed(capsys, "table1", output))
    assert len(first) == 8 and {row[0] for row in first} == {"two-stage", "single stage"}
    runs = set((output / "smoke").glob("*resnet*"))
    assert len(runs) == 8
    second = cells(printed(capsys, "table2", output))
    assert len(second) == 4 and {row[2] for row in second} == {"predicted"}
    assert set((output / "smoke").glob("*resnet*")) == runs, "table 2 measures the networks of table 1"


def test_the_quickstart_comparison_shows_untrained_control_and_ours(
    output: Path, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # or a quickstart run of this checkout would be used
    body = cells(printed(capsys, "quickstart-comparison", output))
    assert [row[:3] for row in body] == [
        ["untrained", "MPI", "-"],
        ["trained", "blacked out", "no"],
        ["trained", "MPI", "yes"],
    ]
    assert all(0 <= float(row[3]) <= 100 for row in body)


def test_ablations_change_one_thing_in_each_row(output: Path, capsys: pytest.CaptureFixture) -> None:
    body = cells(printed(capsys, "ablations", output, "--list"))
    assert not body
    body = cells(printed(capsys, "ablations", output))
    rows = experiments.ablation_rows()
    assert [row[0] for row in body] == [row.label[0] for row in rows]
    assert all(len(row) == 4 and 0 <= float(row[1]) <= 100 for row in body), "no column of the paper's"
    for scale in ("tiny", "full"):
        wanted = table("ablations", SCALES[scale])
        plain, *changed = (fingerprint(configure(wanted, row, SCALES[scale], ())) for row in wanted.rows)
        assert len({plain, *changed}) == len(rows), "every row changes something"


def test_a_run_in_its_own_folder_is_used(tmp_path: Path) -> None:
    scale = SCALES["smoke"]
    wanted = table("quickstart-comparison", scale)
    own = tmp_path / "quickstart"
    control, ours = (configure(wanted, row, scale, [f"output={own}"]) for row in wanted.rows[1:])
    assert folder_of(ours, tmp_path / "x").parent == tmp_path / "x"
    train.run(ours)
    assert folder_of(ours, tmp_path / "x") == own
    assert folder_of(control, tmp_path / "x").parent == tmp_path / "x"


def test_a_stopped_run_is_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scale = SCALES["smoke"]
    configuration = configure(
        table("quickstart-comparison", scale), table("quickstart-comparison", scale).rows[2], scale, ()
    )
    calls = []
    monkeypatch.setattr(train, "run", lambda _, resume: calls.append(resume))
    experiments.ensure_trained(configuration, tmp_path)
    (tmp_path / "last.ckpt").touch()
    experiments.ensure_trained(configuration, tmp_path, keep_checkpoints=True)
    assert calls == [None, "last"]


def test_the_last_five_validations_are_averaged(tmp_path: Path) -> None:
    log = ScoreLog(tmp_path / "scores.jsonl")
    for step in range(1, 9):
        value = float("nan") if step == 8 else step / 10
        log.append(
            step,
            {"street": {"foreground_region_miou": step / 10, "all_region_miou": value, "foreground_mask_iou": 0.5}},
        )
    scores, count = averaged_scores(tmp_path, "street", 5)
    assert count == 5
    assert scores == pytest.approx({"foreground_region_miou": 0.6, "all_region_miou": 0.55, "foreground_mask_iou": 0.5})
    assert averaged_scores(tmp_path, "street", 1)[0]["foreground_region_miou"] == pytest.approx(0.8)


def test_the_full_scale_is_the_papers_recipe() -> None:
    """The recipe as the paper and its released code have it, value by value."""
    full = SCALES["full"]
    for name, batches in (("table1", {8, 4}), ("table3", {8}), ("table4", {8})):
        wanted = table(name, full)
        configurations = [configure(wanted, row, full, ()) for row in wanted.rows]
        assert {c.data.batch_size for c in configurations} == batches
        for configuration in configurations:
            optimizer, schedule = configuration.optimizer, configuration.schedule
            assert (optimizer.name, optimizer.encoder_rate, optimizer.head_rate) == ("adam", 1e-4, 1e-4)
            assert (optimizer.betas, optimizer.weight_decay, optimizer.decay_vectors) == ((0.6, 0.9), 1e-4, True)
            assert optimizer.clip_norm is None and optimizer.ema_decay == 0
            assert (schedule.epochs, schedule.decay, schedule.staircase_epochs) == (50, "staircase", 20)
            assert configuration.fake_masks.sizes == (0.1, 0.4)
            assert configuration.losses.class_weights == (1.0, 5.81867525, 0.78376658)
            assert configuration.losses.mask_overlap == "none" and configuration.losses.hidden_weight == 1
        assert len({fingerprint(c) for c in configurations}) == len(configurations), "no row is another one"
    base = configure(table("table3", full), table("table3", full).rows[1], full, ())
    assert base.network.name == "paper-resnet18" and base.network.input_height == 256 and base.fake_masks.count == 3


def test_the_papers_numbers_stand_beside_ours_only_where_they_are_comparable() -> None:
    known = {row.label: dict(row.paper) for row in table("table2", SCALES["full"]).rows if row.paper}
    assert known == {
        ("single stage", "resnet18", "predicted"): {"foreground_region_miou": 39.2, "all_region_miou": 59.4},
        ("single stage", "resnet50", "predicted"): {"foreground_region_miou": 45.3, "all_region_miou": 61.1},
    }
    assert SCALES["full"].comparable and not SCALES["smoke"].comparable and not SCALES["tiny"].comparable


def test_table_2_asks_for_kitti_and_every_table_measures_on_it_once_it_is_there() -> None:
    full = SCALES["full"]
    with pytest.raises(ConfigurationError, match=r"add data\.roots\.kitti=FOLDER"):
        configure(table("table2", full), table("table2", full).rows[0], full, ())
    extra = [f"data.roots.kitti={SHARED / 'data/kitti_dev'}"]
    runs = {fingerprint(configure(table("table2", full), row, full, extra)) for row in table("table2", full).rows}
    assert runs < {
        fingerprint(configure(table("table1", full), row, full, extra)) for row in table("table1", full).rows
    }


def test_list_trains_nothing(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    text = printed(capsys, "table4", tmp_path, "--list")
    assert text.count("not started") == 8 and "fake_masks.count=0" in text
    assert not (tmp_path / "smoke").exists()


def test_a_wrong_setting_is_an_error_and_not_a_traceback(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert experiments.main(["table3", *SMOKE, "--output", str(tmp_path), "schedule.step=3"]) == 2
    assert "did you mean 'schedule.steps'" in capsys.readouterr().err


def test_drives_are_labelled_by_the_first_row_and_learned_from(output: Path, capsys: pytest.CaptureFixture) -> None:
    body = cells(printed(capsys, "drives", output))
    first = [row[0] for row in body if row[1]]
    assert first == ["annotated streets", *(row.label[0] for row in experiments.drive_rows()[1:])]
    (drives,) = output.glob("smoke/*/drives")
    dataset = Folder(drives)
    assert len(dataset) == 6 and all(dataset[number].true_background is not None for number in range(6))
    wanted, scale = table("drives", SCALES["smoke"]), SCALES["smoke"]
    rows = [
        replace(row, overrides=tuple(text.replace(experiments.FIRST, "x") for text in row.overrides))
        for row in wanted.rows
    ]
    sources = [configure(wanted, row, scale, ()).data.train for row in rows]
    assert [source["street"].true_background for source in sources] == [False, False, False, False, True]
    assert [source["drives"].true_background for source in sources[2:4]] == [False, True]


def test_several_seeds_are_averaged_and_the_papers_claims_held_against_them(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = {"image": (0.50, 0.51), "block2": (0.55, 0.57), "block4": (0.55, 0.55), "logits": (0.60, 0.62)}

    def train_instead(configuration: Configuration, folder: Path, **_: bool) -> None:
        value = scores[configuration.network.mpi_position][configuration.seed]
        folder.mkdir(parents=True, exist_ok=True)
        ScoreLog(folder / "scores.jsonl").append(1, {"street": dict.fromkeys(experiments.SCORE_COLUMNS, value)})

    monkeypatch.setattr(experiments, "ensure_trained", train_instead)
    text = printed(capsys, "table3", tmp_path, "--seeds", "2")
    found = {row[0]: row[1] for row in cells(text)}
    assert found["block2"] == "56.0 ± 1.4" and found["logits"] == "61.0 ± 1.4"
    assert "MPI at block 2 is better than at image: +5.5 ± 0.7: held" in text
    assert "MPI at block 2 is better than at block4: +1.0 ± 1.4: within the spread" in text
    assert "MPI at block 2 is better than at logits: -5.0 ± 0.0: the opposite" in text
    assert len(list((tmp_path / "smoke").iterdir())) == 8

    text = printed(capsys, "table3", tmp_path)
    assert "+5.0: one seed: cannot be said" in text, "the run of seed 0 is the same"


def test_with_several_seeds_no_row_has_a_seed_of_its_own(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = dict.fromkeys(experiments.SCORE_COLUMNS, 0.5)
    monkeypatch.setattr(experiments, "ensure_trained", lambda *_, **__: None)
    monkeypatch.setattr(experiments, "averaged_scores", lambda *_: (scores, 1))
    for seeds, shown in (("1", True), ("2", False)):
        assert (
            "seed=1" in {row[0] for row in cells(printed(capsys, "ablations", tmp_path, "--seeds", seeds))}
        ) == shown
    with pytest.raises(SystemExit):
        experiments.main(["ablations", "--seeds", "0"])
    assert "--seeds must be 1 or more, got 0" in capsys.readouterr().err


def test_every_claim_is_about_rows_of_its_table() -> None:
    for name in ("table1", "table2", "table3", "table4"):
        for scale in SCALES.values():
            wanted = table(name, scale)
            labels = {row.label for row in wanted.rows}
            assert wanted.claims and all({claim.better, claim.worse} <= labels for claim in wanted.claims)


def test_a_small_scale_has_two_stages_of_its_own_network() -> None:
    wanted, scale = table("table1", SCALES["tiny"]), SCALES["tiny"]
    networks = [configure(wanted, row, scale, ["network.pretrained=null"]).network for row in wanted.rows]
    assert {network.name for network in networks} == {"fast-mobilenetv2"}
    assert [(n.mpi_position, n.fill, n.mask_source) for n in networks] == [
        ("image", "zero", "predicted"),
        ("image", "zero", "given"),
        ("block2", "mpi", "predicted"),
        ("block2", "mpi", "given"),
    ]
