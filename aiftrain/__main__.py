"""`python -m aiftrain`: see aiftrain.cli."""

from __future__ import annotations

import sys

from aiftrain.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
