"""Builds this package, its messages among it, with colcon from the ROS wheels of PyPI: no ROS installation needed.

    python -m sfi_ros.ros.wheel_build build/wheels        # installs into build/wheels/install
    source build/wheels/install/local_setup.bash          # now ~/scene is published

With a ROS installation plain `colcon build` does all this. What a system must have is a C++ compiler.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np

PACKAGE: Final = Path(__file__).resolve().parents[2]
_BUILDERS_PYTHON = re.compile(r"/opt/python/cp\d+-cp\d+t?/include/python[\d.]+t?")
_BUILDERS_NUMPY = re.compile(r"/opt/python/cp\d+-cp\d+t?/lib/python[\d.]+t?/site-packages/numpy/_?core/include")


class BuildError(RuntimeError):
    """The build cannot start or failed; the message says why."""


def missing() -> str:
    """Return what a build needs and this machine lacks; "" if nothing."""
    if not (shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")):
        return "a C++ compiler (Ubuntu: apt install g++)"
    tools = Path(sys.executable).parent
    for tool in ("colcon", "cmake", "ninja"):
        if not (tools / tool).exists() and not shutil.which(tool):
            return f"{tool} (pip install {tool if tool != 'colcon' else 'colcon-common-extensions'})"
    if not Path(sys.prefix, "share", "rosidl_default_generators").is_dir():
        return "the ROS wheels (pip install 'sfi_ros[ros]')"
    return ""


def build(workspace: Path, *, symlink_install: bool = False, package: Path = PACKAGE) -> Path:
    """Build into `workspace`; what was built there before is built on.

    Args:
        workspace: folder for prefix, build, log and install.
        symlink_install: link Python files instead of copying them.
        package: the checkout.

    Returns:
        The install folder.

    Raises:
        BuildError: something is missing, or the build failed; quotes its last lines.
    """
    if lacking := missing():
        raise BuildError(f"building needs {lacking}")
    if not (package / "package.xml").is_file():
        raise BuildError(f"{package} is not a checkout of sfi_ros: it has no package.xml. Build in a checkout")
    workspace = workspace.resolve()
    prefix = _shadow_prefix(workspace / "prefix")
    install = workspace / ("install_symlinked" if symlink_install else "install")
    source = _source(workspace / f"{install.name}_src" / "sfi_ros", package, link=symlink_install)
    command = [
        *("colcon", "--log-base", str(workspace / "log"), "build"),
        *("--paths", str(source), "--build-base", str(workspace / f"{install.name}_build")),
        *("--install-base", str(install), "--event-handlers", "console_direct+"),
        *(["--symlink-install"] if symlink_install else []),
        *("--cmake-args", "-G", "Ninja", "-DBUILD_TESTING=OFF", f"-DPython3_EXECUTABLE={sys.executable}"),
    ]
    environment = {
        **os.environ,
        "AMENT_PREFIX_PATH": str(prefix),
        "CMAKE_PREFIX_PATH": str(prefix),
        "VIRTUAL_ENV": sys.prefix,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
    }
    result = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if result.returncode:
        raise BuildError("colcon build failed:\n" + "\n".join(result.stdout.strip().splitlines()[-40:]))
    return install


def _source(folder: Path, package: Path, *, link: bool) -> Path:
    """Return what CMake needs of the checkout: it refuses include folders inside its source, such as those of .venv."""
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    take = os.symlink if link else shutil.copy2
    for name in ("package.xml", "CMakeLists.txt"):
        take(package.resolve() / name, folder / name)
    for name in ("sfi_ros", "msg", "launch", "config"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(package.resolve() / name, folder / name, copy_function=take, ignore=ignored)
    return folder


def _shadow_prefix(prefix: Path) -> Path:
    """Return this environment's ROS prefix, with CMake files that name its own Python instead of the wheel builders'.

    Everything but those files is a link, so the environment itself stays as pip left it.
    """
    if prefix.exists():
        shutil.rmtree(prefix)
    prefix.mkdir(parents=True)
    for part in ("bin", "include", "lib"):
        (prefix / part).symlink_to(Path(sys.prefix, part))
    share = Path(sys.prefix, "share")
    for path in share.rglob("*"):
        copy = prefix / "share" / path.relative_to(share)
        if path.is_dir():
            copy.mkdir(parents=True, exist_ok=True)
        elif path.suffix == ".cmake":
            text = path.read_text(encoding="utf-8")
            text = _BUILDERS_NUMPY.sub(np.get_include(), text)
            copy.write_text(_BUILDERS_PYTHON.sub(sysconfig.get_path("include"), text), encoding="utf-8")
        else:
            copy.symlink_to(path)
    return prefix


def main(arguments: Sequence[str] | None = None) -> int:
    """Build; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("workspace", type=Path, help="folder for the build; made if it is not there")
    parser.add_argument("--symlink-install", action="store_true", help="link Python files instead of copying them")
    parsed = parser.parse_args(arguments)
    try:
        install = build(parsed.workspace, symlink_install=parsed.symlink_install)
    except BuildError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"built; source {install}/local_setup.bash")
    return 0


if __name__ == "__main__":
    sys.exit(main())
