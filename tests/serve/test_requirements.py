"""The table of requirements in docs/serving.md names tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

HERE = Path(__file__).parent
PAGE = HERE.parents[1] / "docs" / "serving.md"


def test_each_requirement_has_its_test() -> None:
    rows = re.findall(r"^\| (\d\.\d\.\d.*) \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(rows) > 20
    for row in rows:
        named = re.findall(r"`(test_\w+\.py)?::(test_\w+)`", row.rpartition("|")[2])
        assert named, row
        file = ""
        for name, function in named:
            file = name or file
            assert f"def {function}(" in (HERE / file).read_text(encoding="utf-8"), (row, function)
