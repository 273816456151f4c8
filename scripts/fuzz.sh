#!/usr/bin/env bash
# Fuzzes the readers with libFuzzer: `scripts/fuzz.sh [SECONDS] [TARGET…]`, all targets and 60
# seconds each if not said otherwise. What crashes a reader lies in fuzz/artifacts/TARGET then;
# `cargo run -p aflora-fuzz -- replay TARGET FILE` runs it again.
#
# It needs `cargo install cargo-fuzz`. The compiler stays the pinned one: RUSTC_BOOTSTRAP lets it
# take the flags that coverage needs. SANITIZER=address is for a compiler that can.
set -euo pipefail
cd "$(dirname "$0")/.."

seconds=${1:-60}
shift || true
cargo fuzz --version >/dev/null 2>&1 || {
    echo 'cargo-fuzz is missing: cargo install cargo-fuzz --locked' >&2
    exit 1
}
export LIBTORCH=${LIBTORCH:-$PWD/.libtorch/torch}
export LD_LIBRARY_PATH=$LIBTORCH/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
export RUSTC_BOOTSTRAP=1
cargo build --quiet --package aflora-fuzz
cargo fuzz build --sanitizer "${SANITIZER:-none}" reader
target/debug/aflora-fuzz seeds fuzz/corpus

host=$(rustc -vV | sed -n 's/^host: //p')
reader=fuzz/target/$host/release/reader
found=0
for target in ${@:-$(target/debug/aflora-fuzz names)}; do
    mkdir -p "fuzz/artifacts/$target"
    log=fuzz/artifacts/$target.log
    echo "$target: $seconds s"
    # A gigabyte above what libtorch itself takes: what a damaged file may ask for is less.
    if AFLORA_TARGET=$target nice -n 15 "$reader" "fuzz/corpus/$target" \
        -max_total_time="$seconds" -timeout=20 -rss_limit_mb=4096 -max_len=65536 \
        -artifact_prefix="fuzz/artifacts/$target/" -print_final_stats=1 >"$log" 2>&1
    then
        sed -n 's/^stat::number_of_executed_units: */  executions: /p' "$log"
    else
        found=1
        tail -n 5 "$log"
    fi
done
exit $found
