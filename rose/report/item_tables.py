"""What each test item was worth: the jobs' items.parquet, in which equal items have one number."""

from pathlib import Path

import pandas
import pyarrow
import pyarrow.parquet

from rose.errors import one_line

KEYS = ["id", "prompt", "subtask"]


class Items:
    """Numbers the items and prompts of all files that it reads: equal ones are the same in any job."""

    def __init__(self) -> None:
        self._items: dict[tuple[str, ...], int] = {}
        self._prompts: dict[str, int] = {}
        self.problems: list[str] = []  # files that cannot be read, a line each

    def read(self, path: Path) -> pandas.DataFrame:
        """A column a metric, a row an item by (its prompt's number, its own); empty without a file."""
        if not path.exists():
            return pandas.DataFrame()
        try:
            frame = pyarrow.parquet.read_table(path).to_pandas()
            keys = list(zip(*(frame.pop(key) for key in KEYS), strict=True))
        except (OSError, KeyError, pyarrow.ArrowException) as error:
            self.problems.append(f"{path.parent.name}/{path.name} cannot be read: {one_line(error)}")
            return pandas.DataFrame()
        prompts = [self._prompts.setdefault(prompt, len(self._prompts)) for _, prompt, _ in keys]
        items = [self._items.setdefault(key, len(self._items)) for key in keys]
        table = frame.select_dtypes("number").astype(float).set_axis(pandas.MultiIndex.from_arrays([prompts, items]))
        return table[~table.index.duplicated()].sort_index()
