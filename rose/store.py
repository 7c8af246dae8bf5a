"""`python -m rose.stages` under its first name."""

import sys

from rose.stages.__main__ import main

if __name__ == "__main__":
    sys.exit(main())
