"""Parquet and Arrow files row by row: what a small file says that it holds is measured before it unfolds."""

from collections.abc import Iterator
from pathlib import Path

import pyarrow
import pyarrow.ipc
import pyarrow.parquet
from pyarrow.compute import call_function

from rose.data import bad_rows
from rose.data.bad_rows import BadRow, Checked, bound, checked, distinct, limit_of

AT_ONCE = 32 << 20  # bytes of a table's rows to unfold together
WHOLE_FILE = b"ARROW1"  # an Arrow file's first bytes; a stream has none of its own
ITEM = 8  # bytes that a value takes in a list at least
TEXTS = (pyarrow.string(), pyarrow.large_string(), pyarrow.binary(), pyarrow.large_binary())
FOLDABLE = {"PLAIN", "PLAIN_DICTIONARY", "RLE_DICTIONARY", "RLE", "BIT_PACKED"}  # what Arrow keeps as a dictionary


def read_parquet(path: Path) -> Iterator[tuple[int, Checked]]:
    number, limit, unfolded = 0, limit_of(path), 0
    metadata = pyarrow.parquet.read_metadata(path)
    for index in range(metadata.num_row_groups):
        bound(metadata.row_group(index).total_byte_size, limit)
    with pyarrow.parquet.ParquetFile(path, metadata=metadata) as file:
        file.scan_contents()  # an error where what is said of a column is damaged; asked below, it would be an abort
    columns, rows = _folding(metadata)
    with pyarrow.parquet.ParquetFile(path, metadata=metadata, read_dictionary=columns) as file:
        distinct(file.schema_arrow.names)
        for index in range(metadata.num_row_groups):
            group = metadata.row_group(index)
            values = sum(group.column(index).num_values for index in range(group.num_columns))
            bound(ITEM * values, limit)
            for batch in file.iter_batches(batch_size=rows, row_groups=[index]):
                unfolded += sum(map(_size, batch.columns))
                bound(unfolded, limit)
                for row in _rows(batch):
                    number += 1
                    yield number, row


def read_arrow(path: Path) -> Iterator[tuple[int, Checked]]:
    """A stream of record batches, as `save_to_disk` of the library `datasets` writes them, or an Arrow file."""
    number, limit, unfolded = 0, limit_of(path), 0
    with pyarrow.memory_map(str(path)) as file:
        whole = file.read(len(WHOLE_FILE)) == WHOLE_FILE
        file.seek(0)
        source = pyarrow.ipc.open_file(file) if whole else pyarrow.ipc.open_stream(file)
        distinct(source.schema.names)
        for batch in map(source.get_batch, range(source.num_record_batches)) if whole else source:
            batch.validate(full=True)
            unfolded += sum(map(_size, batch.columns))
            bound(unfolded, limit)
            for row in _rows(batch):
                number += 1
                yield number, row


def _folding(metadata: pyarrow.parquet.FileMetaData) -> tuple[list[str], int]:
    """The columns that can be read without repeating in memory what a file holds once, and how
    many rows to read at once.

    A file of 1 KB can say a text of 2 MB in every row, or in every item of one row's list; the
    bytes that it states count that text once. Where each text is stored as a difference to the one
    before, only reading few rows helps.
    """
    texts, unfoldable = set(), set()
    for group in map(metadata.row_group, range(metadata.num_row_groups)):
        for column in map(group.column, range(group.num_columns)):
            if column.physical_type == "BYTE_ARRAY":
                (unfoldable if set(column.encodings) - FOLDABLE else texts).add(column.path_in_schema)
            elif column.physical_type == "FIXED_LEN_BYTE_ARRAY":
                unfoldable.add(column.path_in_schema)
    return sorted(texts - unfoldable), 8 if unfoldable else 2048


def _rows(batch: pyarrow.RecordBatch) -> Iterator[Checked]:
    size = sum(map(_size, batch.columns))
    if batch.num_rows == 1 and size > bad_rows.MAX_ROW:
        yield BadRow(bad_rows.TOO_LONG)
    elif batch.num_rows > 1 and size > AT_ONCE:
        half = batch.num_rows // 2
        yield from _rows(batch.slice(0, half))
        yield from _rows(batch.slice(half))
    else:
        unfolded = pyarrow.schema([(field.name, _unfolded(field.type)) for field in batch.schema])
        yield from map(checked, batch.cast(unfolded).to_pylist())


def _size(array: pyarrow.Array) -> int:
    """Bytes of its values: `nbytes` counts once what a dictionary repeats, and nulls not at all."""
    kind = array.type
    if pyarrow.types.is_struct(kind):
        return sum(map(_size, array.flatten()))
    if pyarrow.types.is_map(kind):
        array = array.cast(pyarrow.list_(pyarrow.struct([("key", kind.key_type), ("value", kind.item_type)])))
    if pyarrow.types.is_nested(kind):
        return _size(array.flatten())
    if pyarrow.types.is_dictionary(kind) and kind.value_type in TEXTS:
        lengths = call_function("binary_length", [array.dictionary]).take(array.indices)
        return call_function("sum", [lengths]).as_py() or 0
    return max(array.nbytes, ITEM * len(array))


def _unfolded(kind: pyarrow.DataType) -> pyarrow.DataType:
    """The type without dictionaries, which Python reads one by one."""
    if pyarrow.types.is_dictionary(kind):
        return kind.value_type
    if pyarrow.types.is_list(kind):
        return pyarrow.list_(_unfolded(kind.value_type))
    if pyarrow.types.is_struct(kind):
        return pyarrow.struct([(field.name, _unfolded(field.type)) for field in kind])
    return kind
