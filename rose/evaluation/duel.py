"""`python -m rose.duel` under its first name."""

import runpy

if __name__ == "__main__":
    runpy.run_module("rose.duel", run_name="__main__")
