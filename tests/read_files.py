"""Two rows, and what the program reads of a place."""

import json

from rose.data import files
from rose.data.files import Location

ROWS = [{"id": "a", "text": "één\nline"}, {"id": "b", "text": 'zwei, "drei"'}]


def source(path, patterns=()):
    return Location("dataset.path", str(path), list(patterns), None)


def values(path, patterns=()):
    return [row.error or row.values for row in files.read_rows(source(path, patterns))]


def lines(rows):
    return "".join(json.dumps(row) + "\n" for row in rows)
