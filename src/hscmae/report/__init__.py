"""One self-contained HTML page about a run: its data, training, metrics, a map, examples to see and hear."""

from hscmae.report.html import Contender, write_report

__all__ = ["Contender", "write_report"]
