#!/usr/bin/env bash
# What a task costs: builds release binaries and prints a table of medians, with the ratio to what the disk and the kernel
# cost alone, measured in the same run in the same directory; beside it two queues of one host, where they are installed.
# usage: scripts/bench.sh [--quick] [--json] [--only PART] [--bins DIR] [--install-neighbours]
#   --quick               fewer runs, smaller numbers: about two minutes in place of ten
#   --json                one JSON document in place of the table
#   --only PART           task, neighbours, rules, scale or loud
#   --bins DIR            measures the commands in DIR; builds only what measures
#   --install-neighbours  installs Debian's nq and task-spooler first (apt-get, as root); without it they are skipped where
#                         they are missing, and the table says so
# Where it measures: $BENCH_DIR, else $TMPDIR, else /tmp. On tmpfs an fsync costs nothing: name a directory on a disk.
set -euo pipefail
cd "$(dirname "$0")/.."

usage() {
    sed -n '2,12s/^# \?//p' "$0" >&2
    exit 2
}

words=()
bins=
while [ $# -gt 0 ]; do
    case $1 in
    --quick | --json) words+=("$1") ;;
    --only) words+=("$1" "${2:?--only needs a part}") && shift ;;
    --bins) bins=${2:?--bins needs a directory} && shift ;;
    --install-neighbours)
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends nq task-spooler >&2
        ;;
    *) usage ;;
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
    "$(cd "$bins" && pwd)" "$(realpath "$target/release/examples/bench-agent")" "${words[@]}"
