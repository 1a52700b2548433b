#!/usr/bin/env bash
# What a task costs: builds release binaries and prints a table of medians, with the ratio to what the disk and the kernel
# cost alone, measured in the same run in the same directory.
# usage: scripts/bench.sh [--quick] [--bins DIR]
#   --quick     fewer runs: half a minute in place of two or three
#   --bins DIR  measures the commands in DIR; builds only what measures
# Where it measures: $BENCH_DIR, else $TMPDIR, else /tmp. On tmpfs an fsync costs nothing: name a directory on a disk.
set -euo pipefail
cd "$(dirname "$0")/.."

quick=()
bins=
while [ $# -gt 0 ]; do
    case $1 in
        --quick) quick=(--quick) ;;
        --bins) bins=${2:?--bins needs a directory}; shift ;;
        *) sed -n '2,8s/^# \?//p' "$0" >&2; exit 2 ;;
    esac
    shift
done

target=${CARGO_TARGET_DIR:-target}
if [ -z "$bins" ]; then
    cargo build --release --locked --quiet
    bins=$target/release
fi
cargo build --release --locked --quiet -p dispatch-testkit --example bench
# Static and without unwinding, so that the agent itself is as little as a program can be.
cargo rustc --release --locked --quiet -p dispatch-testkit --example bench-agent -- \
    -C target-feature=+crt-static -C panic=abort

TMPDIR=${BENCH_DIR:-${TMPDIR:-/tmp}} "$target/release/examples/bench" \
    "$(cd "$bins" && pwd)" "$(realpath "$target/release/examples/bench-agent")" "${quick[@]}"
