#!/usr/bin/env bash
# Puts libtorch 2.11.0 into .libtorch, from PyPI's wheels, each pinned by its hash.
#
#   scripts/setup.sh [cuda]
#
# Nothing is done where it is there already. No Python is used but pip; none is needed when
# aflora runs. Whatever goes wrong, .libtorch is whole or as it was before.
set -euo pipefail
cd "$(dirname "$0")/.."

fail() { printf 'setup: %s\n' "$1" >&2; exit 1; }
command -v cargo >/dev/null || fail "cargo is missing: install Rust from https://rustup.rs"
command -v c++ >/dev/null || command -v g++ >/dev/null || fail "a C++ compiler is missing: install g++ (Debian: apt install g++)"

# The user's own libtorch comes first.
if [ -n "${LIBTORCH_USE_PYTORCH:-}" ]; then
    version=$(python3 -c 'import torch; print(torch.__version__)' 2>/dev/null) \
        || fail "LIBTORCH_USE_PYTORCH is set, but python3 cannot import torch"
    case $version in
        2.11.*) exit 0 ;;
        *) fail "LIBTORCH_USE_PYTORCH is set, but python3 has torch $version; 2.11 is needed" ;;
    esac
fi
if [ -n "${LIBTORCH:-}" ] && [ "$LIBTORCH" != "$PWD/.libtorch/torch" ]; then
    [ -f "$LIBTORCH/lib/libtorch_cpu.so" ] || fail "LIBTORCH is $LIBTORCH, but $LIBTORCH/lib/libtorch_cpu.so does not exist"
    exit 0
fi

lists="scripts/libtorch.txt"
if [ "${1:-}" = cuda ]; then lists="$lists scripts/libtorch-cuda.txt"; fi
# shellcheck disable=SC2086
wanted=$(cat $lists | sha256sum | cut -d' ' -f1)
have=$(cat .libtorch/.stamp 2>/dev/null || true)
# A folder with the CUDA libraries serves without a GPU too.
both=$(cat scripts/libtorch.txt scripts/libtorch-cuda.txt | sha256sum | cut -d' ' -f1)
if [ "$have" = "$wanted" ] || [ "$have" = "$both" ]; then exit 0; fi

[ "$(uname -sm)" = "Linux x86_64" ] || fail "only Linux on x86_64 is set up by itself; elsewhere install libtorch 2.11 and set LIBTORCH to its folder"
python3 -m pip --version >/dev/null 2>&1 || fail "Python 3 with pip is missing: install it (Debian: apt install python3-pip)"

echo "setup: fetching libtorch 2.11.0 (about 540 MB${1:+, and 2 GB of CUDA libraries}) into .libtorch"
rm -rf .libtorch.new
trap 'rm -rf .libtorch.new' EXIT
# The platform is fixed, so that any local Python 3 does.
platforms=()
for tag in manylinux_2_28 manylinux_2_27 manylinux_2_25 manylinux_2_18 manylinux_2_17 manylinux2014 manylinux1; do
    platforms+=(--platform "${tag}_x86_64")
done
requirements=()
for list in $lists; do requirements+=(--requirement "$list"); done
python3 -m pip install --quiet --no-cache-dir --disable-pip-version-check --root-user-action=ignore \
    --no-deps --require-hashes --no-compile --only-binary=:all: \
    --python-version 3.12 --implementation cp --abi cp312 --abi none "${platforms[@]}" \
    --target .libtorch.new "${requirements[@]}" || fail "pip could not install libtorch; .libtorch is as it was"
echo "$wanted" > .libtorch.new/.stamp
rm -rf .libtorch
mv .libtorch.new .libtorch
