"""Features on disk: rows of a checkpoint in one file, each with a flag and a scale."""

import json
import os
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy
import torch

from rose.config.choices import StoreDtype
from rose.errors import RoseError
from rose.gradients.quantize import decode, encode, width
from rose.gradients.spaces import TARGETS, VERSIONS, Space, require_same
from rose.stages.disk import vouch, write_json

ABSENT, VALID, NOT_FINITE = 0, 1, 2
AT_ONCE = 1 << 14  # ids that are read
SETTLE = 30.0  # seconds of work that are lost at most; each time the disk is waited for


class Place(NamedTuple):
    """A directory with all rows of a checkpoint, or a shard's: those of these numbers, in order."""

    path: Path
    numbers: numpy.ndarray | None = None


class FeatureStore:
    """Rows [n, d] at each of several checkpoints, in one directory or several.

    Files: features.json, ids.json, a shard's numbers.int64, and a checkpoint's `<name>.rows` (codes),
    `<name>.scale` (float32) and `<name>.done` (uint8: 0 absent, 1 valid, 2 not finite). Files are
    read and written piece by piece, not mapped, so that neither takes memory with the number of
    rows. The directory of a checkpoint that counts for nothing holds no more of it than that, in
    features.json.
    """

    def __init__(self, places: dict[str, list[Place]], header: dict[str, Any]) -> None:
        self.places, self.checkpoints, self.count = places, list(places), header["n"]
        self.path = places[self.checkpoints[0]][0].path
        self.dim: int = header["d"]
        self.dtype = StoreDtype(header["dtype"])
        self.weights: list[float] = [weight / sum(header["weights"]) for weight in header["weights"]]
        self.subtasks: list[str] | None = header["subtasks"]
        self.projection: Space = header["projection"]

    @classmethod
    def create(
        cls,
        path: Path,
        ids: Sequence[str],
        dtype: StoreDtype,
        projection: Space,
        weights: dict[str, float],
        subtasks: Sequence[str] | None = None,
        numbers: numpy.ndarray | None = None,
    ) -> "FeatureStore":
        """An empty store, or the one that a killed process left in `path`.

        `projection` is a projector's description, its dim the features'; `weights` each
        checkpoint's learning rate: whoever reads the store scales those that it reads to sum 1.
        `numbers` are those of a shard's rows among all, ascending.
        """
        header = {
            "n": len(ids),
            "d": projection["dim"],
            "dtype": str(StoreDtype(dtype)),
            "projection": projection,
            "checkpoints": list(weights),
            "weights": list(weights.values()),
            "subtasks": None if subtasks is None else list(subtasks),
        }
        store, left = cls({name: [Place(path)] for name in weights}, header), path / "features.json"
        store.ids = list(ids)
        if left.exists():  # by whatever device or program there was: rows of two maps never mix
            require_same(json.loads(left.read_text())["projection"], projection, (left, "what would go on from it"))
        else:  # written last: where it is, the files are whole
            for name in store.checkpoints:
                for suffix, bytes_each in (("rows", width(dtype, store.dim)), ("scale", 4), ("done", 1)):
                    with open(path / f"{name}.{suffix}", "wb") as file:
                        file.truncate(len(ids) * bytes_each)
            write_json(path / "ids.json", store.ids)
            if numbers is not None:
                numbers.tofile(path / "numbers.int64")
            vouch(path / "features.json", header)
        return store

    @classmethod
    def open(cls, where: Path | Sequence[Path]) -> "FeatureStore":
        """A finished store, or several that hold the same rows at other checkpoints, or shards of them.

        Raises RoseError where another version of a projection made it, several have several, or
        shards are not the parts of a whole.
        """
        paths = [where] if isinstance(where, Path) else where
        headers = {path: json.loads((path / "features.json").read_text()) for path in paths}
        headers = {path: header for path, header in headers.items() if any(header["weights"])}
        if not headers:
            fault = "the learning rate was 0 at all checkpoints that count"
            raise RoseError(f"{paths[0]}: {fault}; method.checkpoints must be more")
        first, header = next(iter(headers.items()))
        for path, other in headers.items():
            kind, version = other["projection"]["kind"], other["projection"]["version"]
            if version != VERSIONS[kind]:
                raise RoseError(
                    f"{path}: projection={kind} of version {version}, this program has version "
                    f"{VERSIONS[kind]}; remove the folder and compute it again"
                )
            require_same(header["projection"], other["projection"], (first, path))
        places: dict[str, list[Place]] = {}
        weights: dict[str, float] = {}
        counts: dict[str, int] = defaultdict(int)
        for path, other in headers.items():
            numbers = numpy.fromfile(path / "numbers.int64", numpy.int64) if (path / "numbers.int64").exists() else None
            for name, weight in zip(other["checkpoints"], other["weights"], strict=True):
                places.setdefault(name, []).append(Place(path, numbers))
                counts[name] += other["n"]
                weights[name] = weight
        for shards in places.values():
            _require_whole(shards)
        return cls(places, header | {"n": counts[next(iter(places))], "weights": list(weights.values())})

    def __len__(self) -> int:
        return self.count

    @cached_property
    def ids(self) -> list[str]:
        return list(self.each_id())

    def each_id(self) -> Iterator[str]:
        """The rows' ids in order, which are not in memory at once."""
        shards = self.places[self.checkpoints[0]]
        owner, streams = numpy.zeros(len(self), dtype=numpy.int32), [_ids(shard.path) for shard in shards]
        for place, shard in enumerate(shards):
            owner[slice(None) if shard.numbers is None else shard.numbers] = place
        return (next(streams[int(place)]) for place in owner)

    @property
    def streamed(self) -> bool:
        """Whether columns are cosines with the targets (features.keep=stream), not features."""
        return self.projection["kind"] == TARGETS

    @cached_property
    def valid(self) -> torch.Tensor:
        """Bool [n]: rows that are finite at every checkpoint."""
        flags = [self.flags(i) == VALID for i in range(len(self.checkpoints))]
        return torch.from_numpy(numpy.logical_and.reduce(flags))

    def flags(self, checkpoint: int) -> numpy.ndarray:
        """uint8 [n] of ABSENT, VALID, NOT_FINITE."""
        flags = numpy.zeros(len(self), dtype=numpy.uint8)
        for place in self.places[self.checkpoints[checkpoint]]:
            own = numpy.fromfile(place.path / f"{self.checkpoints[checkpoint]}.done", dtype=numpy.uint8)
            flags[slice(None) if place.numbers is None else place.numbers] = own
        return flags

    def rows(self, checkpoint: int, start: int, stop: int) -> torch.Tensor:
        """Rows start..stop (exclusive) at a checkpoint: float32 [n, d], zeros where not valid."""
        stop, name = max(start, min(stop, len(self))), self.checkpoints[checkpoint]
        shards = [(place.path, place.numbers) for place in self.places[name] if place.numbers is not None]
        if not shards:
            return self._read(self.places[name][0].path / name, start, stop)
        rows = torch.empty(stop - start, self.dim)
        for path, numbers in shards:
            first, last = numpy.searchsorted(numbers, (start, stop)).tolist()
            rows[numbers[first:last] - start] = self._read(path / name, first, last)
        return rows

    def _read(self, files: Path, start: int, stop: int) -> torch.Tensor:
        count, each = stop - start, width(self.dtype, self.dim)
        codes = numpy.fromfile(f"{files}.rows", numpy.uint8, count * each, offset=start * each).reshape(count, each)
        scale = numpy.fromfile(f"{files}.scale", numpy.float32, count, offset=start * 4)
        return decode(torch.from_numpy(codes), torch.from_numpy(scale), self.dtype, self.dim)

    def write(self, checkpoint: int, numbers: Sequence[int], features: torch.Tensor) -> None:
        """Puts features [n, d] at the rows `numbers`, once and for all."""
        with Filling(self, checkpoint) as filling:
            filling.write(numbers, features)

    def not_finite(self) -> list[dict[str, str]]:
        """{"id", "checkpoint"} of each row that has a NaN or an infinity."""
        return [
            {"id": self.ids[row], "checkpoint": name}
            for i, name in enumerate(self.checkpoints)
            for row in numpy.flatnonzero(self.flags(i) == NOT_FINITE)
        ]

    def file(self, checkpoint: int, suffix: str) -> Path:
        """Of what is being written, which is in one directory."""
        name = self.checkpoints[checkpoint]
        return self.places[name][0].path / f"{name}.{suffix}"


def _require_whole(shards: list[Place]) -> None:
    numbers = [shard.numbers for shard in shards if shard.numbers is not None]
    order = numpy.sort(numpy.concatenate([numpy.arange(0), *numbers]))
    if len(shards) > max(1, len(numbers)) or not numpy.array_equal(order, numpy.arange(len(order))):
        raise RoseError(f"{shards[0].path}: its rows and those of its other shards do not make up the pool")


def _ids(path: Path) -> Iterator[str]:
    """Those of one directory: `write_json` puts each on a line of its own."""
    with open(path / "ids.json") as file:
        lines = (line.rstrip(",\n") for line in file if line.startswith(' "'))
        while some := list(islice(lines, AT_ONCE)):
            yield from json.loads(f"[{','.join(some)}]")


def leave_out(path: Path, checkpoint: str) -> None:
    """In place of a store: that the checkpoint counts for nothing."""
    write_json(path / "features.json", {"checkpoints": [checkpoint], "weights": [0.0]})


class Filling:
    """Puts rows into a checkpoint of a store; those not finite become zeros and are flagged.

    A thread of its own brings a batch from the device, in one copy, and writes it while the next is
    computed; what it meets is raised by the next `write`, or at the end. Flags follow every SETTLE
    seconds and at the end, when their rows are on the disk. So whatever ends the process, a row with
    a flag is whole; one without is done again.
    """

    def __init__(self, store: FeatureStore, checkpoint: int) -> None:
        self.dtype = store.dtype
        self.rows, self.scales, self.done = (
            open(store.file(checkpoint, suffix), "r+b", buffering=0)  # noqa: SIM115 — to __exit__
            for suffix in ("rows", "scale", "done")
        )
        self.flags: list[tuple[int, int]] = []  # (row, flag) of what may not be on disk yet
        self.settled = time.monotonic()
        self.writer = ThreadPoolExecutor(1, "writer")
        self.under_way: Future[None] | None = None

    def __enter__(self) -> "Filling":
        return self

    def __exit__(self, *_: object) -> None:
        with self.rows, self.scales, self.done:
            self.writer.shutdown()
            self._settle()
            self.wait()

    def write(self, numbers: Sequence[int], features: torch.Tensor) -> None:
        """Puts features [n, d] at the rows `numbers`."""
        features = features.float()
        finite = torch.isfinite(features).all(1)
        codes, scale = encode(torch.where(finite[:, None], features, 0), self.dtype)
        flags = torch.where(finite, VALID, NOT_FINITE).to(torch.uint8)
        packed = torch.cat((codes, scale[:, None].view(torch.uint8), flags[:, None]), 1)
        self.wait()  # for the batch before: two are in memory at most
        self.under_way = self.writer.submit(self._put, list(numbers), packed)

    def wait(self) -> None:
        """Until what was given so far is written. Raises what the writer met."""
        if self.under_way is not None:
            self.under_way.result()

    def _put(self, numbers: list[int], packed: torch.Tensor) -> None:
        for number, row in zip(numbers, packed.cpu().numpy(), strict=True):
            for file, values in ((self.rows, row[:-5]), (self.scales, row[-5:-1])):
                file.seek(number * values.nbytes)
                file.write(values.tobytes())
            self.flags.append((number, int(row[-1])))
        if time.monotonic() - self.settled > SETTLE:
            self._settle()

    def _settle(self) -> None:
        for file in (self.rows, self.scales):
            os.fdatasync(file.fileno())
        for number, flag in self.flags:
            self.done.seek(number)
            self.done.write(bytes([flag]))
        self.flags, self.settled = [], time.monotonic()
