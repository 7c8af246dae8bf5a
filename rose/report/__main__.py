"""`python -m rose.report outputs/sweeps/NAME`: rebuilds a sweep's report from what its jobs left on disk."""

import argparse
from pathlib import Path

from rose.config.hints import or_exit
from rose.report.report import write_report


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m rose.report", description=__doc__)
    parser.add_argument("sweep", type=Path, metavar="DIR", help="a sweep's folder, or a single job's")
    arguments = parser.parse_args()
    or_exit(lambda: _rebuild(arguments.sweep))


def _rebuild(sweep: Path) -> None:
    report = write_report(sweep)
    print(report.text)
    print(f"Report: {report.path}")


if __name__ == "__main__":
    main()
