#!/usr/bin/env bash
# Every crate that others can depend on, as cargo packages it: each builds from its package, with the
# packages of the others, and its documentation builds without libtorch, as docs.rs has none.
#
#   scripts/crates.sh
set -euo pipefail
cd "$(dirname "$0")/.."

# Packages do not carry the workspace's profile: without it all would be built once more.
${CARGO:-cargo} package --workspace --exclude aflora-fuzz --exclude tch --allow-dirty \
    --config "profile.dev.debug='line-tables-only'" --config 'profile.dev.package."*".debug=false'
LIBTORCH=/nonexistent RUSTDOCFLAGS='--deny warnings' ${CARGO:-cargo} doc --no-deps --lib \
    --package aflora-cuda --package aflora-core --package aflora-models --package aflora-run \
    --features aflora-run/doc-only --target-dir target/doc-only
