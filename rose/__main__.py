"""rose, or python -m rose: Hydra composes one job or a sweep, and each job runs.

`rose plan`, `report`, `stages`, `data`, `duel` and `share` are the other programs, as python -m rose.plan and so on.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
if __name__ == "__main__" and not __package__:  # run by its path: no folder of ours may stand for a module
    sys.path[0] = str(ROOT)

import logging
import os
import shutil
import signal
from importlib import import_module

import hydra

from rose import ranks
from rose.config import CONF
from rose.config.hints import or_exit
from rose.config.reference import help_text
from rose.run.names import register_resolvers
from rose.run.task import task

PROGRAMS = {name: f"rose.{name}" for name in ("plan", "duel", "share")}
PROGRAMS |= {name: f"rose.{name}.__main__" for name in ("report", "stages", "data")}

logging.raiseExceptions = bool(os.environ.get("ROSE_DEBUG"))  # rose.log on a full disk: lines lost, no tracebacks
register_resolvers()


def main() -> None:
    """Exit code 0: every job done; 1: a job failed or the input is wrong, said in one line."""
    if sys.argv[1:] and sys.argv[1] in PROGRAMS:
        sys.exit(import_module(PROGRAMS[sys.argv.pop(1)]).main())
    if {"--help", "-h"} & set(sys.argv):
        return print(help_text(shutil.get_terminal_size(fallback=(120, 0)).columns))
    if not ranks.is_first():
        sys.argv += ranks.QUIET
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what a scheduler sends: an orderly end, not a torn one
    try:
        or_exit(hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")(task))
    except KeyboardInterrupt:
        print("rose: interrupted; the same command goes on from here", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
