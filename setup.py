"""Hand over to pyproject.toml, which describes the package, for tools that look for a setup.py."""

from setuptools import setup

setup()
