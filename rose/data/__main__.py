"""rose data FILE [model=PATH_OR_NAME] [KEY=VALUE …]: what a file is taken for.

Its layout, rows, turns and roles, why rows are refused or dropped, and with a model its lengths in
tokens and the first row as the model sees it: what is learned stands between ⟦ and ⟧. FILE is whatever
dataset.path may be; it is read as a pool, as preference pairs, or as both where its columns fit both.
"""

import argparse

from rose.config.hints import or_exit


def main() -> None:
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="rose data", description=__doc__, formatter_class=formatter)
    parser.add_argument("file", metavar="FILE", help="a file, a folder, a path with wildcards, or a hub dataset id")
    as_for_rose = "model=, and what else rose would be given, such as model.max_length=512"
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help=as_for_rose)
    arguments = parser.parse_args()
    from rose.run.look import show  # late: help need not wait for torch

    or_exit(lambda: show(arguments.file, arguments.overrides))


if __name__ == "__main__":
    main()
