"""Several sources each get their folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from sfi_ros.frames.sources import SourceError
from sfi_ros.offline.places import output_folders


def test_folders_of_several_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for drive in ("day.1", "day.2"):
        (tmp_path / drive / "left").mkdir(parents=True)
    out = Path("out")

    def folders(*sources: str) -> list[str]:
        return [path.as_posix() for path in output_folders([str(tmp_path / source) for source in sources], out)]

    assert folders("day.1/cam.mp4") == ["out"]
    assert folders("day.1/cam.mp4", "day.1/rear.mp4") == ["out/cam", "out/rear"]
    assert folders("day.1/cam.mp4", "day.2/cam.mp4") == ["out/day.1/cam", "out/day.2/cam"]
    assert folders("day.1/cam.mp4", "day.1/cam.avi", "day.1/x.avi") == ["out/cam.mp4", "out/cam.avi", "out/x"]
    assert folders("day.1", "day.2") == ["out/day.1", "out/day.2"], "a folder's name has no suffix"
    monkeypatch.chdir(tmp_path / "day.1")
    assert output_folders(["left", "../day.2/left", "synthetic"], out) == [
        out / "day.1/left",
        out / "day.2/left",
        out / "synthetic",
    ]
    with pytest.raises(SourceError, match=r"day\.2 is given more than once"):
        folders("day.2", "day.2")
    with pytest.raises(SourceError, match=r"the results of .*day\.1 would lie around those of another source"):
        folders("day.1", "day.1/left", "day.2")
