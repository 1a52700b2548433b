#!/usr/bin/env bash
# A machine that dies hard. Node b lives in a user-mode Linux guest, its state on the guest's own ext4 disk, the share on
# the host. A task runs there; the whole guest is killed, with everything that was not synced; the next guest on the same
# disk must answer it `unknown`, with a sealed result, without running it again, and must go on with the next task. Then
# guests die in the middle of a burst: no task runs twice, each has one answer, and the ledger on the disk is whole.
#
# usage: scripts/lab-uml.sh [--install]     exit 0 shown, 75 no guest to be had here (skipped), else failed
#   --install   installs user-mode-linux with apt-get where it is missing and this is root
#   DISPATCH_BIN=DIR   uses the commands in DIR instead of building them
set -euo pipefail
cd "$(dirname "$0")/.."

skip() {
    echo "SKIPPED: $*" >&2
    exit 75
}

if [ "${1-}" = --install ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    for package in user-mode-linux e2fsprogs; do
        dpkg -s "$package" >/dev/null 2>&1 ||
            DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$package" >/dev/null 2>&1 ||
            true
    done
fi
uml=$(command -v linux.uml) || skip "user-mode-linux is not installed (apt-get install user-mode-linux)"
command -v mkfs.ext4 >/dev/null || skip "mkfs.ext4 is not here (apt-get install e2fsprogs)"
command -v pgrep >/dev/null || skip "pgrep is not here (apt-get install procps)"
command -v cc >/dev/null || skip "no C compiler"

if [ -z "${DISPATCH_BIN-}" ]; then
    cargo build --quiet --locked
    DISPATCH_BIN=${CARGO_TARGET_DIR:-$PWD/target}/debug
fi

lab=$(mktemp -d "${TMPDIR:-/tmp}/dispatch-uml.XXXXXX")
guest=
cleanup() {
    rc=$?
    [ -z "$guest" ] || kill -9 -- "-$guest" 2>/dev/null || true
    if [ "$rc" != 0 ] && [ "$rc" != 75 ]; then
        echo "--- console"
        tail -n 20 "$lab"/console.* 2>/dev/null || true
        echo "--- watcher in the guest"
        tail -n 40 "$lab/watch.log" 2>/dev/null || true
    fi
    rm -rf "$lab"
}
trap cleanup EXIT

cc -O2 -shared -fPIC -o "$lab/xstate.so" scripts/lab-uml-xstate.c || skip "the preload does not compile"
mkdir "$lab/share" "$lab/home-a" "$lab/home-b" "$lab/tmp"
disk=$lab/disk

# usage: node NAME COMMAND ARGS…   runs a command of that node on the host
node() {
    local name=$1
    shift
    env -i PATH="$DISPATCH_BIN:$PATH" HOME="$lab/home-$name" USER=lab LANG=C.UTF-8 "$@"
}

# usage: wait_for SECONDS WHAT COMMAND…
wait_for() {
    local end=$((SECONDS + $1)) what=$2
    shift 2
    until "$@" >/dev/null 2>&1; do
        [ $SECONDS -lt $end ] || {
            echo "FAILED: not within the time: $what" >&2
            exit 1
        }
        kill -0 "$guest" 2>/dev/null || {
            echo "FAILED: the guest ended while waiting for: $what" >&2
            exit 1
        }
        sleep 0.05
    done
}

# The guest's first process: mounts the disk over node b's home, so that every path is the one of the host.
cat >"$lab/init" <<EOF
#!/bin/sh
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t ext4 -o noatime /dev/ubda $lab/home-b || { echo GUEST-NO-DISK; exec sleep 1000000; }
ip link set lo up 2>/dev/null
echo GUEST-READY
cd $lab/home-b
env -i PATH="$DISPATCH_BIN:\$PATH:/usr/bin:/bin:/usr/sbin:/sbin" HOME=$lab/home-b USER=lab LANG=C.UTF-8 \\
    dispatch-watch >>$lab/watch.log 2>&1
echo "GUEST-WATCHER-ENDED \$?"
exec sleep 1000000
EOF
chmod +x "$lab/init"

# Boots a guest on the disk, as a process group of its own, and waits for its first process. The whole is one machine.
boot() {
    local console=$lab/console.$1
    : >"$console"
    HOME=$lab TMPDIR=$lab/tmp LD_PRELOAD=$lab/xstate.so setsid "$uml" mem=256M \
        rootfstype=hostfs rootflags=/ rw init="$lab/init" ubda="$disk" con=null con0=fd:0,fd:1 \
        </dev/null >"$console" 2>&1 &
    guest=$!
    local end=$((SECONDS + 60))
    until grep -q GUEST-READY "$console"; do
        if [ $SECONDS -ge $end ] || grep -q GUEST-NO-DISK "$console" || ! kill -0 "$guest" 2>/dev/null; then
            tail -n 15 "$console" >&2
            [ "$1" = 1 ] && skip "the guest does not start here"
            exit 1
        fi
        sleep 0.05
    done
}

die_hard() {
    kill -9 -- "-$guest"
    wait "$guest" 2>/dev/null || true
    # The guest's processes are processes here; they go a moment after the kernel that traced them.
    while pgrep -g "$guest" >/dev/null; do
        sleep 0.02
    done
    guest=
}

result_of() {
    node a dispatchctl result "$1" --json
}
status_of() {
    result_of "$1" 2>/dev/null | sed -n 's/.*"status": *"\([a-z_]*\)".*/\1/p' | head -n1
}
status_is() {
    [ "$(status_of "$1")" = "$2" ]
}
result_of_ok_or_unknown() {
    status_is "$1" ok || status_is "$1" unknown
}

echo "setting up two nodes; b's disk is an image that only guests mount"
(cd "$lab/home-a" && node a dispatchctl init --quiet --root "$lab/share" --node a --peer b >/dev/null)
join=$(find "$lab/home-a" -name '*join*' -type f | head -n1)
(cd "$lab/home-b" && node b dispatchctl init --quiet --join "$join" --root "$lab/share" >/dev/null)
# A short interval: taking a node over on another boot of its machine waits for two heartbeats of its own name.
cat >"$lab/edit.awk" <<'EOF'
/^\[watch\]/ { print; print "strategy = \"poll\""; print "heartbeat_s = 1"; next }
{ print }
EOF
config=$lab/home-b/.config/dispatch/dispatch.toml
awk -f "$lab/edit.awk" "$config" >"$lab/config" && cat "$lab/config" >"$config"
truncate -s 256M "$disk"
mkfs.ext4 -q -F -d "$lab/home-b" "$disk"
rm -rf "$lab/home-b" && mkdir "$lab/home-b"

runs=$lab/runs
: >"$runs"
# usage: request LABEL    a script that notes its run at once on the host's disk: nothing else of the guest is synced by it
request() {
    printf 'echo %s | dd of=%s oflag=append,dsync conv=notrunc status=none\n' "$1" "$runs"
}
# usage: ran LABEL    how often it ran
ran() {
    grep -cx "$1" "$runs" || true
}
# usage: send LABEL [MORE-SCRIPT]    prints the id
send() {
    { request "$1"; printf '%s\n' "${2-}"; } | node a dispatch-send --to b --timeout 2h - | cut -f1
}
fail() {
    echo "FAILED: $*" >&2
    exit 1
}

first=$(send first 'sleep 100000')
echo "guest 1 takes $first and starts its agent"
boot 1
wait_for 120 "the agent starts" grep -q first "$runs"

echo "guest 1 is killed whole, in the middle of the run"
die_hard

second=$(send second)
echo "guest 2 boots from the same disk"
boot 2
wait_for 120 "the first task is answered: unknown" status_is "$first" unknown
wait_for 120 "the second task is answered: ok" status_is "$second" ok
[ "$(ran first)" = 1 ] || fail "the first task ran $(ran first) times"
[ "$(ran second)" = 1 ] || fail "the second task ran $(ran second) times"

echo "guests 2 and 3 are killed in the middle of a burst of 40 tasks"
burst=()
for number in $(seq 40); do
    burst+=("$(send "burst-$number" 'sleep 0.05')")
done
has_run() {
    [ "$(grep -c burst "$runs")" -ge "$1" ]
}
wait_for 120 "some of the burst have run" has_run 8
die_hard
boot 3
wait_for 120 "more of the burst have run" has_run 20
die_hard
boot 4
known=0
for number in $(seq 40); do
    id=${burst[number - 1]}
    wait_for 120 "burst-$number is answered" result_of_ok_or_unknown "$id"
    times=$(ran "burst-$number")
    [ "$times" -le 1 ] || fail "burst-$number ran $times times"
    if status_is "$id" ok; then
        [ "$times" = 1 ] || fail "burst-$number is answered ok and did not run"
        known=$((known + 1))
    fi
done
die_hard
echo "each of the 40 is answered once: $known ok, $((40 - known)) unknown; none ran twice"

echo "the ledger, as it lies on the disk"
e2fsck -p "$disk" >/dev/null || [ $? -le 1 ]
debugfs -R "rdump / $lab/home-b" "$disk" >/dev/null 2>&1
node b dispatchctl audit verify
echo "shown: a machine that dies in the middle of a run answers unknown, sealed, and runs nothing a second time"
