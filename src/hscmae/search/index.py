"""Indices."""

from __future__ import annotations

from typing import Any


class Index:
    def search(self, *a: Any) -> Any: ...
