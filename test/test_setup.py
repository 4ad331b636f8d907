"""What pip installs: versions that are pinned, and a package that works without its checkout."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
TESTED = (
    re.search(r"^TESTED := (.+)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE).group(1).split(",")
)
SUPPORTED = ("3.10", "3.11", "3.12", "3.13")


def environment(python: str) -> dict[str, str]:
    """The marker environment of that Python on x86-64 Linux."""
    return {
        "python_version": python,
        "python_full_version": f"{python}.0",
        "sys_platform": "linux",
        "platform_system": "Linux",
        "platform_machine": "x86_64",
    }


def requirements(*extras: str, python: str) -> list[Requirement]:
    """What the package and its extras ask for under a Python on x86-64 Linux."""
    lines = [*PROJECT["dependencies"], *(line for extra in extras for line in EXTRAS[extra])]
    found = map(Requirement, lines)
    return [item for item in found if item.marker is None or item.marker.evaluate(environment(python))]


def pins(name: str, python: str) -> dict[str, str]:
    """Package -> version that a constraints file holds for a Python."""
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    found = [Requirement(line) for line in lines if not line.startswith("#")]
    valid = [pin for pin in found if pin.marker is None or pin.marker.evaluate(environment(python))]
    versions = {canonicalize_name(pin.name): str(pin.specifier).removeprefix("==") for pin in valid}
    assert len(versions) == len(valid), "a package has two versions for one Python"
    return versions


@pytest.mark.parametrize("python", SUPPORTED)
def test_every_requirement_is_pinned_within_its_bounds(python):
    pinned = pins("constraints.txt", python)
    for requirement in requirements(*EXTRAS, python=python):
        version = pinned.get(canonicalize_name(requirement.name))
        assert version is not None, f"constraints.txt lacks {requirement.name}: make constraints"
        assert requirement.specifier.contains(version, prereleases=True), f"{requirement}, pinned {version}"


def test_the_lowest_versions_are_the_lower_bounds():
    pinned = pins("constraints-lowest.txt", "3.10")
    for requirement in requirements(*TESTED, python="3.10"):
        version = pinned.get(canonicalize_name(requirement.name))
        assert version is not None, f"constraints-lowest.txt lacks {requirement.name}: make constraints"
        assert requirement.specifier.contains(version, prereleases=True), f"{requirement}, pinned {version}"
        for bound in requirement.specifier:
            if bound.operator == ">=":
                assert f"{version}.".startswith(f"{bound.version}."), f"{requirement}, tested {version}"


def test_setup_installs_from_the_constraints():
    """`make setup` and CI, which calls it, install nothing but pinned versions, and again when a pin changes."""
    printed = subprocess.run(
        ["make", "--dry-run", "--always-make", "setup"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    install = next(line for line in printed.stdout.splitlines() if "--editable" in line)
    assert "--constraint constraints.txt" in install
    assert set(re.search(r"\.\[(.+?)\]", install).group(1).split(",")) <= set(EXTRAS)


def with_what_they_require(lines: list[str]) -> set[str]:
    """Names of the packages of some requirements, and of all that these need, as installed here."""
    names: set[str] = set()
    waiting = [Requirement(line) for line in lines]
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        if name not in names and (requirement.marker is None or requirement.marker.evaluate({"extra": ""})):
            names.add(name)
            waiting += map(Requirement, importlib.metadata.requires(name) or ())
    return names


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """A folder with what `pip install` makes of a source distribution; its dependencies are this environment's."""
    folder = tmp_path_factory.mktemp("packaging")
    source = folder / "source"
    names = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True)
    if names.returncode:
        pytest.skip("needs a git checkout")
    for name in names.stdout.splitlines():
        if (ROOT / name).is_file():  # what is deleted and not committed yet is listed, too
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, source / name)
    build = "import sys; from setuptools import build_meta; build_meta.build_sdist(sys.argv[1])"
    subprocess.run([sys.executable, "-c", build, folder], cwd=source, check=True, capture_output=True)
    archive = next(folder.glob("sfi_ros-*.tar.gz"))
    target = folder / "site-packages"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--no-build-isolation"]
    subprocess.run([*pip, "--target", target, archive], check=True)
    return target


def run(installed: Path, folder: Path, *arguments: object) -> str:
    """Run Python in a folder, with the installed package instead of the checkout; what it printed."""
    variables = {**os.environ, "PYTHONPATH": str(installed), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *map(str, arguments)]
    result = subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    return result.stdout


def package_files(folder: Path) -> Iterator[str]:
    for path in folder.rglob("*"):
        if path.is_file() and "__pycache__" not in path.parts:
            yield path.relative_to(folder).as_posix()


def test_the_installed_package_has_every_file(installed):
    assert set(package_files(installed / "sfi_ros")) == set(package_files(ROOT / "sfi_ros"))
    assert not (installed / "training").exists()
    assert not (installed / "test").exists()


def test_sfi_works_with_nothing_but_the_required_packages(installed, tmp_path):
    """As in a new environment after `pip install .`: every package that an extra adds is missing."""
    required = with_what_they_require(PROJECT["dependencies"])
    modules = [
        module
        for module, packages in importlib.metadata.packages_distributions().items()
        if not required & {canonicalize_name(package) for package in packages} and module != "sfi_ros"
    ]
    assert "torch" in modules
    code = f"""
import sys
sys.modules.update(dict.fromkeys({modules}))
from sfi_ros.cli import main
sys.exit(main(["run", "synthetic", "-o", "out", "--limit", "3"]))
"""
    run(installed, tmp_path, "-c", code)
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert (summary["frames"], summary["weights"]) == (3, "default.onnx")


def test_sfi_works_outside_a_checkout(installed, tmp_path):
    sfi = installed / "bin" / "sfi"
    weights = installed / "sfi_ros" / "weights" / "default.safetensors"
    assert "fast-mobilenetv2" in run(installed, tmp_path, sfi, "info", weights)
    run(installed, tmp_path, sfi, "run", "synthetic", "-o", "out", "--limit", 3)
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["frames"] == 3


@pytest.mark.skipif(
    importlib.util.find_spec("rclpy") is None, reason="ROS 2 is not installed (pip install sfi_ros[ros])"
)
def test_the_demo_works_outside_a_checkout(installed, tmp_path):
    code = "import sfi_ros.ros.dds as d; print(*d.profile_environment().values(), sep='\\n')"
    for path in run(installed, tmp_path, "-c", code).split():
        assert Path(path).is_relative_to(installed)
        assert Path(path).is_file()
    run(installed, tmp_path, "-m", "sfi_ros.ros.demo", "synthetic", "-o", "out", "--limit", 3)
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["frames_out"] > 0
