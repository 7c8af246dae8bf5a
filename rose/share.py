"""rose share JOB --repo NAMESPACE/NAME [--dry-run]: a finished job for the Hugging Face hub, with its story.

Its selection becomes a dataset and its adapter a model of that name, each with a card, in JOB/hub; without
--dry-run both are pushed, which needs a token. Rows of which nothing says a licence are refused unless
--license says it.
"""

import argparse
from pathlib import Path

from rose.config.hints import or_exit


def main() -> None:
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="rose share", description=__doc__, formatter_class=formatter)
    parser.add_argument("job", type=Path, metavar="JOB", help="a finished job's folder")
    parser.add_argument("--repo", required=True, metavar="NAMESPACE/NAME", help="what it will be called on the hub")
    parser.add_argument("--dry-run", action="store_true", help="write JOB/hub and push nothing")
    parser.add_argument("--private", action="store_true", help="repositories that are made are private")
    told = "of the rows that say none, of one source or of all; may be given again for another source"
    parser.add_argument("--license", action="append", default=[], metavar="[SOURCE=]NAME", help=told)
    base = "the base model's id on the hub, where the job had a copy of it"
    parser.add_argument("--base-model", metavar="ID", help=base)
    given = parser.parse_args()
    from rose.run.share import share  # late: help need not wait for torch

    or_exit(lambda: share(given.job, given.repo, given.license, given.base_model, given.dry_run, given.private))


if __name__ == "__main__":
    main()
