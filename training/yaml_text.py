"""YAML that people write: a key that stands twice is an error, where others drop the first one in silence."""

from __future__ import annotations

from typing import Any

import yaml


def parse(text: str) -> Any:
    """Return what a YAML text says: mappings, lists, texts, numbers, truth values, dates and None.

    Raises:
        ValueError: it is not YAML, or a key stands twice; the message is one line and says where.
    """
    try:
        return yaml.load(text, _Loader)
    except (yaml.YAMLError, RecursionError, ValueError) as error:  # ValueError: a date such as 2024-13-45
        raise ValueError(" ".join(str(error).split())) from error


class _Loader(yaml.SafeLoader):
    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            name = (key.tag, key.value) if isinstance(key, yaml.ScalarNode) else key
            if name in seen:
                raise yaml.MarkedYAMLError(problem=f"{key.value} stands there twice", problem_mark=key.start_mark)
            seen.add(name)
        return super().construct_mapping(node, deep)
