#!/usr/bin/env bash
# Lays down in FOLDER what a release holds, but for the licences of what PROGRAM is made of.
#
#   scripts/release/stage.sh PROGRAM FOLDER
#
# `aflora doctor` and errors name what lies here (crates/aflora-run/src/installation.rs).
set -euo pipefail
program=$(readlink -f "$1")
mkdir -p "$2"
folder=$(cd "$2" && pwd)
cd "$(dirname "$0")/../.."

mkdir -p "$folder"/{bin,scripts} "$folder"/share/man/man1 "$folder"/share/bash-completion/completions \
    "$folder"/share/fish/vendor_completions.d "$folder"/share/zsh/site-functions
cp "$program" "$folder/bin/aflora"
git ls-files configs experiments scripts/assets \
    | grep -v -e '\.py$' -e ^experiments/results/ -e ^experiments/README.md \
    | xargs cp --parents --target-directory "$folder"
cp scripts/{setup.sh,assets.sh,unpack.py,libtorch.txt,libtorch-cuda.txt} "$folder/scripts/"
cp scripts/release/{install.sh,README.md} CITATION.cff LICENSE-APACHE LICENSE-MIT "$folder/"

aflora() { "$folder/bin/aflora" "$@"; }
aflora man > "$folder/share/man/man1/aflora.1"
for command in $(aflora --help | sed -n '/^Commands:/,/^$/s/^  \([a-z]\+\) .*/\1/p'); do
    if [ "$command" != help ]; then aflora man "$command" > "$folder/share/man/man1/aflora-$command.1"; fi
done
aflora completions bash > "$folder/share/bash-completion/completions/aflora"
aflora completions fish > "$folder/share/fish/vendor_completions.d/aflora.fish"
aflora completions zsh > "$folder/share/zsh/site-functions/_aflora"
