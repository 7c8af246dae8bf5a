"""Streamed scores against those of a stored pool, and of a run that was cut short."""

import json

import numpy
import pandas
import pytest
import torch
from gradient_stages import NONE, places, pool, stages_before
from gradient_stages import targets as aims_of
from method_toys import composed_method
from tiny_models import NUMERICS, SAME_BYTES

from rose.config.choices import AdamMap, Normalize, ProjectionKind
from rose.config.schema import Projection
from rose.gradients import features as stages
from rose.gradients.feature_store import FeatureStore
from rose.gradients.features import pool_cosines
from rose.gradients.objectives import Loss, Objective
from rose.methods.gradient import influence

ROSE = composed_method("rose")
SKETCH = Projection(kind=ProjectionKind.sketch, dim=1024, seed=3)


def aims(run, out, projection=NONE):
    aims_of(run, out, Objective(Loss.contrast), projection=projection)
    return out


def stream(run, out, targets, batch_tokens=64, **more):
    root, _, _ = run
    before = (root / "base", root / "warmup", root / "tokens")
    for checkpoint, (place, aim) in enumerate(zip(places(out), places(targets), strict=True), 1):
        place.mkdir(parents=True, exist_ok=True)
        pool_cosines(place, checkpoint, AdamMap.exact, batch_tokens, NUMERICS, *before, aim, **more)
    return out


def values(run, features, targets, normalize=Normalize.per_pair):
    rows = pandas.DataFrame({"id": [row["id"] for row in run[1]]})
    return influence(ROSE, rows, normalize, places(features), places(targets)).values


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return stages_before(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def both(run, tmp_path_factory):
    """The pool's features without projection, its cosines, and the targets of both."""
    folder = tmp_path_factory.mktemp("both")
    pool(run, folder / "features")
    targets = aims(run, folder / "targets")
    return folder / "features", stream(run, folder / "cosines", targets), targets


def test_streamed_scores_of_the_first_tokens_are_those_of_a_store_of_them(run, both, tmp_path):
    pool(run, tmp_path / "features", tokens=3)
    cosines = stream(run, tmp_path / "cosines", both[2], first_tokens=3)
    found = values(run, cosines, both[2])
    numpy.testing.assert_allclose(found, values(run, tmp_path / "features", both[2]), atol=1e-5)
    assert abs(found - values(run, both[1], both[2])).max() > 1e-3


@pytest.mark.parametrize("normalize", list(Normalize))
def test_streamed_scores_are_those_of_an_unprojected_store(run, both, normalize):
    features, cosines, targets = both
    stored = values(run, features, targets, normalize)
    assert stored.shape == (7, 3)
    assert numpy.abs(values(run, cosines, targets, normalize) - stored).max() < 2e-6 * numpy.abs(stored).max()


def test_a_projected_store_ranks_as_streaming_does_up_to_the_projections_error(run, both, tmp_path):
    _, cosines, targets = both
    pool(run, tmp_path / "features", SKETCH)
    sketched = values(run, tmp_path / "features", aims(run, tmp_path / "targets", SKETCH))
    assert numpy.abs(values(run, cosines, targets) - sketched).max() < 4 / SKETCH.dim**0.5


def test_nothing_is_stored_but_a_number_a_row_target_and_checkpoint(both):
    _, cosines, _ = both
    files = [place / f"checkpoint-{i}.rows" for i, place in enumerate(places(cosines), 1)]
    assert [file.stat().st_size for file in files] == [7 * 3 * 4] * 2
    assert FeatureStore.open(places(cosines)).streamed


@SAME_BYTES
def test_a_killed_stream_redoes_at_most_one_batch(run, both, tmp_path, monkeypatch):
    _, cosines, targets = both
    honest, taken = stages.gradients, []

    def dying(engine, rows, *rest):
        taken.append(len(rows))
        if len(taken) == 4:
            raise KeyboardInterrupt
        return honest(engine, rows, *rest)

    monkeypatch.setattr(stages, "gradients", dying)
    with pytest.raises(KeyboardInterrupt):
        stream(run, tmp_path / "cosines", targets)
    stream(run, tmp_path / "cosines", targets)
    done = len(taken)
    monkeypatch.setattr(stages, "gradients", lambda *args: taken.append(0) or honest(*args))
    stream(run, tmp_path / "whole", targets)
    assert done - 1 == len(taken) - done
    for name in ("1/checkpoint-1.rows", "2/checkpoint-2.rows"):
        assert (tmp_path / "cosines" / name).read_bytes() == (cosines / name).read_bytes()


def test_a_row_that_is_not_finite_has_no_score(run, both, tmp_path, monkeypatch):
    _, _, targets = both
    honest = stages.project_updates

    def poisoned(gradients, *how):
        gradients[0] = torch.nan  # of each batch: its longest row
        return honest(gradients, *how)

    monkeypatch.setattr(stages, "project_updates", poisoned)
    out = stream(run, tmp_path / "cosines", targets, batch_tokens=1000)
    assert numpy.isnan(values(run, out, targets)).any(axis=1).tolist() == [i == 3 for i in range(7)]
    assert json.loads((out / "1" / "dropped.jsonl").read_text().splitlines()[0])["id"] == "row-3"
