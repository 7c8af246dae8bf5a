"""rose stages ls | du | gc | verify: what lies under outputs/stages, who uses it, and
whether it is whole.

An artifact is used by the jobs whose stages.json (until they are done, claims.json) names it, and
needed by what was made from it. `gc` removes the others and what dead processes left; it only tells
unless `--yes` is given.
"""

import argparse
import shutil
import sys
from collections import Counter, defaultdict
from pathlib import Path

from rose.config.hints import or_exit
from rose.errors import RoseError
from rose.stages import checksums, inventory, leases
from rose.stages.cost import stored


def ls(outputs: Path) -> None:
    rows = []
    for artifact in sorted(inventory.artifacts(outputs), key=lambda artifact: artifact.name):
        groups = Counter(str(Path(job).parent) for job in artifact.users)
        users = ", ".join(f"{group} ({count})" for group, count in sorted(groups.items()))
        state = users or ("what was made from it" if artifact.needed else "nobody")
        rows.append([artifact.name, size(stored(artifact.path)), age(inventory.hours(artifact.path)), state])
    print(columns([["artifact", "size", "age", "used by (jobs)"], *rows]))


def du(outputs: Path) -> None:
    totals: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0])
    for artifact in inventory.artifacts(outputs):
        bytes_ = stored(artifact.path)
        total = totals[f"stages/{artifact.path.parent.name}"]
        total[0] += 1
        total[1] += bytes_
        total[2] += bytes_ if artifact.orphan else 0
    for path in inventory.stages_of(outputs).glob("*/.*.part"):
        totals["stages (.part)"][0] += 1
        totals["stages (.part)"][1] += stored(path)
    for folder in sorted(path for path in outputs.iterdir() if path.is_dir() and path.name != "stages"):
        totals[folder.name] = [sum(1 for path in folder.iterdir()), stored(folder), 0]
    totals["all"] = [sum(column) for column in zip(*totals.values(), strict=True)]
    rows = [[name, str(n), size(all_), size(free) if free else ""] for name, (n, all_, free) in totals.items()]
    print(columns([["folder", "entries", "size", "used by nobody"], *rows]))


def gc(outputs: Path, yes: bool) -> None:
    locks = inventory.stages_of(outputs) / ".locks"
    locks.mkdir(exist_ok=True)
    with leases.held(locks / "gc.lease"):
        garbage = list(inventory.garbage(outputs))
        sizes = {path: stored(path) if path.is_dir() else path.stat().st_size for path, _ in garbage}
        removed = inventory.remove(outputs, list(sizes)) if yes and garbage else list(sizes)
    rows = [[str(path.relative_to(outputs)), size(sizes[path]), why] for path, why in garbage if path in removed]
    if rows:
        print(columns(rows))
    total = f"{len(removed)} entries, {size(sum(sizes[path] for path in removed))}"
    print(f"removed {total}" if yes else f"{total} to remove; nothing was removed: that takes --yes")


def verify(outputs: Path, names: list[str], removing: bool) -> int:
    """Exit code 1 if a damaged artifact is left."""
    artifacts = inventory.finished(outputs)
    if unknown := [name for name in names if name not in artifacts]:
        raise RoseError(f"{unknown[0]}: no such artifact; `python -m rose.stages ls` lists them, as stage/label-hash")
    damaged = unchecked = 0
    for name in names or artifacts:
        faults = checksums.damage(artifacts[name])
        unchecked += not checksums.recorded(artifacts[name])
        for fault in faults:
            print(f"{name}: {fault}")
        if faults and removing:
            if aside := inventory.set_aside(outputs, artifacts[name]):
                shutil.rmtree(aside)
            print(f"{name}: removed; the next run that needs it makes it again")
        damaged += bool(faults) and not removing
    more = f", {unchecked} without recorded checksums" if unchecked else ""
    print(f"{len(names or artifacts)} artifacts, {damaged} damaged{more}")
    return 1 if damaged else 0


def size(count: float) -> str:
    """Bytes for people, in powers of 1024."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def age(hours: float) -> str:
    return f"{hours * 60:.0f} min" if hours < 1 else f"{hours:.0f} h" if hours < 48 else f"{hours / 24:.0f} d"


def columns(rows: list[list[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    cells = ([cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in rows)
    return "\n".join("  ".join(row).rstrip() for row in cells)


def main() -> int:
    """Exit code 1 where something damaged is left, or the command is wrong."""
    parser = argparse.ArgumentParser(prog="rose stages", description=__doc__)
    where = "the folder to look at, as for rose; default: outputs. outputs=DIR says the same, anywhere in the line"
    parser.add_argument("--outputs", type=Path, default=Path("outputs"), metavar="DIR", help=where)
    commands = parser.add_subparsers(dest="command", required=True)
    listed = commands.add_parser("ls", help="every artifact with its size, age and users")
    listed.set_defaults(do=lambda given: ls(given.outputs))
    used = commands.add_parser("du", help="bytes by stage, and how many of them nobody uses")
    used.set_defaults(do=lambda given: du(given.outputs))
    parts = commands.add_parser("gc", help="remove what nobody uses and what dead processes left")
    parts.add_argument("--yes", action="store_true", help="do it; without, only tell")
    parts.set_defaults(do=lambda given: gc(given.outputs, given.yes))
    check = commands.add_parser("verify", help="compare artifacts with the checksums they were published with")
    check.add_argument("names", nargs="*", metavar="NAME", help="stage/label-hash; default: all")
    check.add_argument("--remove", action="store_true", help="remove the damaged ones; they are made again when needed")
    check.set_defaults(do=lambda given: verify(given.outputs, given.names, given.remove))
    words = sorted(sys.argv[1:], key=lambda word: not word.startswith("outputs="))  # before the command, as an option
    arguments = parser.parse_args([f"--{word}" if word.startswith("outputs=") else word for word in words])
    return or_exit(lambda: arguments.do(arguments)) or 0


if __name__ == "__main__":
    sys.exit(main())
