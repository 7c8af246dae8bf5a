"""rose plan experiments=NAME [--steps] [--submit]: a sweep as a graph, what it will cost, and in which
order to run it.

Stages that several jobs need come first, those that the same jobs need as one step; a job follows
the steps that make its prefix. `--steps` shows each step with its stages. `--submit` sends each step
and the jobs behind it to Slurm, so that nothing there ever waits for a stage.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from rose.config.hints import or_exit


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="rose plan", description=__doc__)
    parser.add_argument("--steps", action="store_true", help="each step, with its stages and what it follows")
    parser.add_argument("--submit", action="store_true", help="send it to Slurm, as hydra/launcher=slurm… says")
    parser.add_argument("-m", "--multirun", action="store_true", help="as for rose; a plan is always of a sweep")
    parser.add_argument("-cd", "--config-dir", type=Path, metavar="DIR", help="as for rose: a conf/ of your own")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="what rose would be given")
    arguments = parser.parse_intermixed_args(argv)
    overrides: list[str] = arguments.overrides
    if arguments.config_dir:
        overrides.append(f"hydra.searchpath=['file://{arguments.config_dir.absolute()}']")
    from rose.run.plan import show_plan  # late: help need not wait for torch

    or_exit(lambda: show_plan(overrides, arguments.submit, arguments.steps))


if __name__ == "__main__":
    main()
