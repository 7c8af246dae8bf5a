#!/usr/bin/env bash
# The first run on a GPU machine, about six minutes: the bench, the tests marked for a GPU, the tests that run models.
# Wants .gpu/whl and .gpu/half/model.a where the machine lacks packages (pack.sh); writes into $OUT, keeps in $KEEP.
set -uo pipefail
cd "$(dirname "$0")/../.."
export PYTHONUNBUFFERED=1 PIP_NO_INDEX=1 PIP_DISABLE_PIP_VERSION_CHECK=1 HF_HUB_OFFLINE=1 WANDB_MODE=offline
export TOKENIZERS_PARALLELISM=false
OUT=${OUT:-outputs/gpu}; KEEP=${KEEP:-outputs/gpu/keep}; mkdir -p "$OUT" "$KEEP"
say() { echo "== $1 at $SECONDS s"; }
cp .gpu/half/model.a "$KEEP/" 2>/dev/null
if ls .gpu/whl/*.whl >/dev/null 2>&1 && ! python3 -m pip install -q --no-deps --no-compile .gpu/whl/*.whl; then
  python3 -m pip install -q --no-deps --no-compile --target "$KEEP/site" .gpu/whl/*.whl
  export PYTHONPATH=$KEEP/site
fi
say installed
{ nvidia-smi || echo "no GPU"; python3 -m pip list; } > "$OUT/machine.txt" 2>/dev/null
timeout "${BENCH_SECONDS:-240}" python3 -m bench.gpu "$OUT/bench" --seconds 210 > "$OUT/bench.txt" 2>&1
tail -3 "$OUT/bench.txt" | cut -c1-200; say "the bench"
pytest="timeout ${TEST_SECONDS:-60} python3 -m pytest -p no:cacheprovider --continue-on-collection-errors"
[ -n "$(python3 -c 'import importlib.util as u; print(u.find_spec("xdist") or "")')" ] && pytest="$pytest -n ${TEST_WORKERS:-$(($(nproc) < 8 ? $(nproc) : 8))} --dist loadfile"
$pytest -k "(cuda or gpu or kernel or fused) and not without" $(grep -lE "CUDA|DEVICES|triton" tests/test_*.py) > "$OUT/tests_gpu.txt" 2>&1
tail -3 "$OUT/tests_gpu.txt" | cut -c1-200; say "the tests marked for a GPU"
$pytest tests/test_{per_example,features,streaming,finite,pairs_training}.py > "$OUT/tests.txt" 2>&1
tail -3 "$OUT/tests.txt" | cut -c1-200; say "the tests that run models"
