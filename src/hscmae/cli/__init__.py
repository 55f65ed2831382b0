"""The command line: a module a group of verbs, thin; what a verb does lives in the library.

Results go to stdout (with ``--json`` one object and nothing else), everything else to stderr. torch is imported inside
the verbs, so that ``--help`` is instant. A new verb is a function in the module of its group.
"""

from hscmae.cli.app import app, main

__all__ = ["app", "main"]
