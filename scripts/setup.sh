#!/usr/bin/env bash
# Puts libtorch 2.11.0 into .libtorch, from PyPI's wheels, each pinned by its hash.
#
#   scripts/setup.sh [cuda] [lean]
#
# With `lean` only what a built program loads: no headers, no compiler is asked for.
#
# Nothing is done where it is there already. No Python is used but pip and its library; none is
# needed when aflora runs. Whatever goes wrong, .libtorch is whole or as it was before.
set -euo pipefail
cd "$(dirname "$0")/.."

fail() { printf 'setup: %s\n' "$1" >&2; exit 1; }
cuda='' lean=''
for word in "$@"; do
    case $word in
        cuda) cuda=cuda ;;
        lean) lean=lean ;;
        *) fail "$word is not known; there are: cuda, lean" ;;
    esac
done

if [ -z "$lean" ]; then
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
fi

# What a folder holds: the digest of its lists, with `lean` behind. One with the CUDA libraries serves
# without a GPU too, one with headers a program that needs none.
stamp() { cat scripts/libtorch.txt ${1:+scripts/libtorch-cuda.txt} | sha256sum | cut -d' ' -f1; }
wanted="$(stamp "$cuda")${lean:+ lean}"
have=$(cat .libtorch/.stamp 2>/dev/null || true)
for enough in "$wanted" "${wanted% lean}" "$(stamp cuda)" "$(stamp cuda)${lean:+ lean}"; do
    if [ "$have" = "$enough" ]; then exit 0; fi
done

[ "$(uname -sm)" = "Linux x86_64" ] || fail "only Linux on x86_64 is set up by itself; elsewhere install libtorch 2.11 and set LIBTORCH to its folder"
python3 -m pip --version >/dev/null 2>&1 || fail "Python 3 with pip is missing: install it (Debian: apt install --no-install-recommends python3-pip)"

echo "setup: fetching libtorch 2.11.0 (about 540 MB${cuda:+, and 2 GB of CUDA libraries}) into .libtorch"
rm -rf .libtorch.new
trap 'rm -rf .libtorch.new' EXIT
mkdir .libtorch.new
# The platform is fixed, so that any local Python 3 does.
platforms=()
for tag in manylinux_2_28 manylinux_2_27 manylinux_2_25 manylinux_2_18 manylinux_2_17 manylinux2014 manylinux1; do
    platforms+=(--platform "${tag}_x86_64")
done
requirements=(--requirement scripts/libtorch.txt)
if [ -n "$cuda" ]; then requirements+=(--requirement scripts/libtorch-cuda.txt); fi
python3 -m pip download --quiet --no-cache-dir --disable-pip-version-check \
    --no-deps --require-hashes --only-binary=:all: \
    --python-version 3.12 --implementation cp --abi cp312 --abi none "${platforms[@]}" \
    --dest .libtorch.new/wheels "${requirements[@]}" || fail "pip could not fetch libtorch; .libtorch is as it was"
python3 scripts/unpack.py .libtorch.new/wheels .libtorch.new ${lean:+${cuda:-cpu}}
rm -r .libtorch.new/wheels
echo "$wanted" > .libtorch.new/.stamp
rm -rf .libtorch
mv .libtorch.new .libtorch
