"""`python -m rose.report outputs/sweeps/NAME`: rebuilds a sweep's report from what its jobs left on disk."""

import argparse
import os
import sys
from pathlib import Path

from rose.errors import RoseError, explain
from rose.report.report import write_report


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m rose.report", description=__doc__)
    parser.add_argument("sweep", type=Path, metavar="DIR", help="a sweep's folder, or a single job's")
    arguments = parser.parse_args()
    try:
        report = write_report(arguments.sweep)
        print(report.text)
        print(f"Report: {report.path}")
    except (RoseError, OSError) as error:
        if os.environ.get("ROSE_DEBUG") == "1":
            raise
        print(f"rose: {explain(error)}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
