"""docs/architecture.md lists every module, once, in one line, and no other."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ENTRY = re.compile(r"^\| `((?:sfi_ros|training|benchmarks)/[\w/]+\.(?:py|sh))` \| (\S.*) \|$", re.MULTILINE)


def test_the_map_is_that_of_the_tree() -> None:
    listed = Counter(path for path, _ in ENTRY.findall((ROOT / "docs/architecture.md").read_text(encoding="utf-8")))
    modules = {
        path.relative_to(ROOT).as_posix()
        for package in ("sfi_ros", "training", "benchmarks")
        for path in [*(ROOT / package).rglob("*.py"), *(ROOT / package).rglob("*.sh")]
        if path.name != "__init__.py"
    }
    assert sorted(modules - set(listed)) == [], "not in docs/architecture.md"
    assert sorted(set(listed) - modules) == [], "in docs/architecture.md, but gone"
    assert [path for path, count in listed.items() if count > 1] == []
