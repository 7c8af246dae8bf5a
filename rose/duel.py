"""rose duel JOB_A JOB_B [judge=…]: two finished jobs' answers against each other."""

import argparse
from pathlib import Path

from rose.config.hints import or_exit


def main() -> None:
    parser = argparse.ArgumentParser(prog="rose duel", description=__doc__)
    parser.add_argument("first", type=Path, metavar="JOB_A", help="a finished job's folder")
    parser.add_argument("second", type=Path, metavar="JOB_B", help="another's, tested on the same pairs")
    parser.add_argument("overrides", nargs="*", metavar="judge=…", help="the judge, where it is not JOB_A's own")
    arguments = parser.parse_args()
    from rose.run.duel import duel, summary  # late: help need not wait for torch

    folder = or_exit(lambda: duel(arguments.first, arguments.second, arguments.overrides))
    print(f"{arguments.first.name} against {arguments.second.name}: {summary(folder)}\n{folder}")


if __name__ == "__main__":
    main()
