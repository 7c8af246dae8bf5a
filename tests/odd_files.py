"""Good rows in every format, to be spoiled, and how they are read."""

import gzip
import io
import json
from pathlib import Path

import pandas
import pyarrow
import pyarrow.ipc

from rose.config.choices import OnBadRow
from rose.data import files
from rose.data.files import Location
from rose.errors import RoseError


def sifted(path: Path, parse, skipped: Path) -> tuple[list[dict], list[dict]]:
    """(rows, skipped rows) of a file, or a RoseError of one line; anything else that is raised fails the test."""
    skipped.unlink(missing_ok=True)
    source = Location("dataset.path", str(path), [], None)
    try:
        found = list(files.sift(files.read_rows(source), parse, "dataset.on_bad_row", OnBadRow.skip, skipped))
    except RoseError as error:
        assert str(error) and "\n" not in str(error)
        raise
    return found, list(files.load(skipped)) if skipped.exists() else []


def lines(values: list) -> bytes:
    return b"".join(json.dumps(value).encode() + b"\n" for value in values)


GOOD = [
    {"id": f"r{i}", "prompt": f"ask {i}\n🌹", "completion": f'"yes", {i}', "chosen": "a", "rejected": "b"}
    for i in range(9)
]


def table(name: str, rows: list[dict] = GOOD) -> bytes:
    """Rows in one of the formats."""
    buffer = io.BytesIO()
    if name == "r.parquet":
        pandas.DataFrame(rows).to_parquet(buffer)
    elif name == "r.arrow":
        data = pyarrow.Table.from_pylist(rows)
        with pyarrow.ipc.new_stream(buffer, data.schema) as stream:
            stream.write_table(data)
    elif name == "r.csv":
        pandas.DataFrame(rows).to_csv(buffer, index=False)
    elif name == "r.jsonl.gz":
        buffer.write(gzip.compress(lines(rows), mtime=0))
    else:
        buffer.write(lines(rows) if name == "r.jsonl" else json.dumps(rows, indent=1).encode())
    return buffer.getvalue()
