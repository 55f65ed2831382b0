"""``python -m hscmae``: the command line, as torchrun starts it."""

import sys

from hscmae.cli import main

sys.exit(main())
