#!/usr/bin/env bash
# The public interface of each library, a line an item, beside what api/ holds: a change of it is
# seen and meant.
#
#   scripts/api.sh           says what is not as api/ has it, and ends with an error then
#   scripts/api.sh accept    writes it there
#
# It takes `cargo install --locked cargo-public-api@0.52.0`. The compiler stays the pinned one:
# RUSTC_BOOTSTRAP lets its rustdoc alone write JSON, of the version that cargo-public-api 0.52 reads.
set -euo pipefail
cd "$(dirname "$0")/.."

cargo public-api --version >/dev/null 2>&1 || {
    echo 'cargo-public-api is missing: cargo install --locked cargo-public-api@0.52.0' >&2
    exit 2
}
new=$(mktemp -d)
trap 'rm -rf "$new"' EXIT
# cargo itself and the compiler go without: what they built for `make docs` serves here too.
printf '#!/bin/sh\nRUSTC_BOOTSTRAP=1 exec rustdoc "$@"\n' > "$new/rustdoc"
chmod +x "$new/rustdoc"
RUSTDOC=$new/rustdoc RUSTDOCFLAGS='-Zunstable-options --output-format json' ${CARGO:-cargo} doc --quiet \
    --workspace --exclude tch --exclude aflora-fuzz --no-deps --lib
rm "$new/rustdoc"
for crate in files record report cuda core models; do
    cargo public-api --rustdoc-json "${CARGO_TARGET_DIR:-target}/doc/aflora_$crate.json" -sss --color never \
        > "$new/aflora-$crate.txt"
done
if [ "${1:-}" = accept ]; then
    rm -rf api
    mkdir api
    cp "$new"/*.txt api/
    exit
fi
diff -ru api "$new" || {
    echo 'api: that is not what api holds; if it is meant: scripts/api.sh accept' >&2
    exit 1
}
