"""rose report outputs/sweeps/NAME: rebuilds a sweep's report from what is on disk."""

import argparse
from pathlib import Path

from rose.config.hints import or_exit


def main() -> None:
    parser = argparse.ArgumentParser(prog="rose report", description=__doc__)
    parser.add_argument("sweep", type=Path, metavar="DIR", help="a sweep's folder, or a single job's")
    arguments = parser.parse_args()
    from rose.report.report import write_report  # late: help need not wait for pandas

    report = or_exit(lambda: write_report(arguments.sweep))
    print(report.text)
    print(f"Report: {report.path}")


if __name__ == "__main__":
    main()
