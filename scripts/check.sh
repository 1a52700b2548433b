#!/usr/bin/env bash
# Everything that a change must pass, in the order in which it is cheap to fail.
# usage: scripts/check.sh [--no-tests]
set -euo pipefail
cd "$(dirname "$0")/.."

step() { printf '\n== %s\n' "$*"; }

step format
cargo fmt --all --check

step lints
cargo clippy --workspace --all-targets --locked -- -D warnings

step "documentation (of the libraries: a command's binary has its library's name)"
RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --lib --locked --quiet

step "dependencies (licences, bans, sources, advisories)"
scripts/deny.sh

if [ "${1-}" = --no-tests ]; then
    exit 0
fi

step tests
cargo test --workspace --locked

step demo
scripts/demo.sh
