#!/usr/bin/env bash
# Packs a release: target/dist/aflora-VERSION-x86_64-linux.tar.gz, and its digest beside it. The same
# sources, compiler and libtorch make the same bytes.
#
#   scripts/dist.sh            after scripts/setup.sh
#
# The program is built in target/dist, since its flags are others: it finds libtorch beside itself, and
# no path of this machine is in it.
set -euo pipefail
cd "$(dirname "$0")/.."

fail() { printf 'dist: %s\n' "$1" >&2; exit 1; }
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)
name=aflora-$version-x86_64-linux
cargo_home=${CARGO_HOME:-$HOME/.cargo}
LIBTORCH=$(readlink -f "${LIBTORCH:-.libtorch/torch}")
[ -f "$LIBTORCH/lib/libtorch_cpu.so" ] || fail "there is no libtorch in $LIBTORCH: scripts/setup.sh fetches it"
export LIBTORCH

flags=(
    -C "link-arg=-Wl,-rpath,\$ORIGIN/../.libtorch/torch/lib"
    --remap-path-prefix "$cargo_home/registry/src=crates"
    --remap-path-prefix "$PWD=aflora"
)
CARGO_ENCODED_RUSTFLAGS=$(printf '%s\x1f' "${flags[@]}")
export CARGO_ENCODED_RUSTFLAGS=${CARGO_ENCODED_RUSTFLAGS%$'\x1f'}
export CXXFLAGS="-ffile-prefix-map=$LIBTORCH=libtorch -ffile-prefix-map=$cargo_home/registry/src=crates"
export CFLAGS=$CXXFLAGS
export AFLORA_RELEASE=1
${CARGO:-cargo} build --release --locked --package aflora-run --target-dir target/dist

stage=target/dist/$name
rm -rf "$stage"
LD_LIBRARY_PATH=$LIBTORCH/lib scripts/release/stage.sh target/dist/release/aflora "$stage"
python3 scripts/notices.py > "$stage/THIRD-PARTY.txt"

program=$stage/bin/aflora
path=$(readelf --dynamic --wide "$program" | sed -n 's/.*runpath: \[\(.*\)\]/\1/p')
[ "$path" = "\$ORIGIN/../.libtorch/torch/lib" ] || fail "the program looks for libtorch in $path"
for leaked in "$PWD" "$cargo_home" "$LIBTORCH"; do
    if grep --quiet --text --fixed-strings "$leaked" "$program"; then fail "$leaked is in the program"; fi
done
# No newer C library than its README names is asked for by the program or by libtorch.
newest=$(readelf --version-info --wide "$program" "$LIBTORCH/lib/libtorch_cpu.so" \
    | grep -o 'GLIBC_2\.[0-9]*' | sort -uV | tail -1)
grep --quiet "glibc ${newest#GLIBC_}\b" "$stage/README.md" \
    || fail "the program needs glibc ${newest#GLIBC_}; scripts/release/README.md names another"

when=@$(git log -1 --format=%ct)
tar --create --sort=name --owner=0 --group=0 --numeric-owner --mtime="$when" \
    --directory=target/dist "$name" | gzip --no-name --best > "$stage.tar.gz"
(cd target/dist && sha256sum "$name.tar.gz" | tee "$name.tar.gz.sha256")
du -h --apparent-size "$stage.tar.gz" "$program"
