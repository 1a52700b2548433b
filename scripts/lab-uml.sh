#!/usr/bin/env bash
# A machine that dies hard. Node b lives in a user-mode Linux guest, its state on the guest's own ext4 disk, the share on
# the host. Whatever the guest had not synced is lost when it is killed, as with a power cut.
#
# First: a task runs, the whole guest is killed, and the next guest on the same disk must answer it `unknown`, sealed,
# without running it again, and go on with the next task. Then: paid tasks keep coming and the guest is killed again and
# again, wherever it is; in the end each is answered, none ran twice, and the books of the disk add up.
#
# usage: scripts/lab-uml.sh [--install]     exit 0 shown, 75 no guest to be had here (skipped), else failed
#   --install   installs user-mode-linux with apt-get where it is missing and this is root
#   DISPATCH_BIN=DIR   uses the commands in DIR instead of building them
#   LAB_ROUNDS=N       kills so often in the second part (default 5)
set -euo pipefail
cd "$(dirname "$0")/.."

skip() {
    echo "SKIPPED: $*" >&2
    exit 75
}

if [ "${1-}" = --install ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    for package in user-mode-linux e2fsprogs; do
        dpkg -s "$package" >/dev/null 2>&1 && continue
        install() {
            DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$package" >/dev/null 2>&1
        }
        install || { apt-get update -qq >/dev/null 2>&1 && install; } || true
    done
fi
uml=$(command -v linux.uml) || skip "user-mode-linux is not installed (apt-get install user-mode-linux)"
command -v mkfs.ext4 >/dev/null || skip "mkfs.ext4 is not here (apt-get install e2fsprogs)"
command -v pgrep >/dev/null || skip "pgrep is not here (apt-get install procps)"
command -v debugfs >/dev/null || skip "debugfs is not here (apt-get install e2fsprogs)"
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

fail() {
    echo "FAILED: $*" >&2
    exit 1
}

# usage: wait_for SECONDS WHAT COMMAND…
wait_for() {
    local end=$((SECONDS + $1)) what=$2
    shift 2
    until "$@" >/dev/null 2>&1; do
        [ $SECONDS -lt $end ] || fail "not within the time: $what"
        kill -0 "$guest" 2>/dev/null || fail "the guest ended while waiting for: $what"
        sleep 0.05
    done
}

# The guest's first process: mounts the disk over node b's home, so that every path is the one of the host. It ends the
# watcher and lets go of the disk when the host says so.
cat >"$lab/init" <<EOF
#!/bin/sh
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t ext4 -o noatime /dev/ubda $lab/home-b || { echo GUEST-NO-DISK; exec sleep 1000000; }
ip link set lo up 2>/dev/null
cd $lab/home-b
env -i PATH="$DISPATCH_BIN:\$PATH:/usr/bin:/bin:/usr/sbin:/sbin" HOME=$lab/home-b USER=lab LANG=C.UTF-8 \\
    dispatch-watch >>$lab/watch.log 2>&1 &
watcher=\$!
echo GUEST-READY
while [ ! -e $lab/leave ]; do
    kill -0 \$watcher 2>/dev/null || { echo GUEST-WATCHER-ENDED; exec sleep 1000000; }
    sleep 0.1
done
kill -TERM \$watcher
wait \$watcher
echo "GUEST-WATCHER-LEFT \$?"
cd /
umount $lab/home-b && echo GUEST-DISK-CLEAN
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
    result_of "$1" | sed -n 's/.*"status": *"\([a-z_]*\)".*/\1/p' | head -n1
}
status_is() {
    [ "$(status_of "$1")" = "$2" ]
}

echo "setting up two nodes; b's disk is an image that only guests mount"
(cd "$lab/home-a" && node a dispatchctl init --root "$lab/share" --node a --peer b >/dev/null 2>&1)
join=$(find "$lab/home-a" -name '*join*' -type f | head -n1)
(cd "$lab/home-b" && node b dispatchctl init --join "$join" --root "$lab/share" >/dev/null 2>&1)
# A short interval: taking a node over on another boot of its machine waits for two heartbeats of its own name.
config=$lab/home-b/.config/dispatch/dispatch.toml
awk '/^\[watch\]/ { print; print "strategy = \"poll\"\npoll_ms = 100\nheartbeat_s = 1"; next }
    /^\[budget\]/ { print; print "run_usd = \"100\"\nmonth_usd = \"100\""; next }
    { print }' "$config" >"$lab/config"
cat >>"$lab/config" <<'EOF'

[profile.paid]
agent = "command"
argv = ["/bin/sh", "-eu"]
billing = "metered"
max_cost_usd = "0.75"
overshoot_usd = "0.25"
EOF
cat "$lab/config" >"$config"
truncate -s 256M "$disk"
mkfs.ext4 -q -F -d "$lab/home-b" "$disk"
rm -rf "$lab/home-b" && mkdir "$lab/home-b"

# What agents did, on the host: each line is synced before the agent goes on.
runs=$lab/runs
: >"$runs"

# usage: task LABEL THEN OPTIONS…   sends a task that notes its run and goes on with THEN; prints its id
task() {
    local label=$1 then=$2
    shift 2
    printf 'echo %s.$DISPATCH_ATTEMPT >>%s; sync %s\n%s\n' "$label" "$runs" "$runs" "$then" |
        node a dispatch-send --to b "$@" - | cut -f1
}
count() {
    grep -c "^$1\$" "$runs" || true
}

first=$(task first 'sleep 100000' --timeout 2h)
echo "guest 1 takes $first and starts its agent"
boot 1
wait_for 120 "the agent starts" grep -q first "$runs"

echo "guest 1 is killed whole, in the middle of the run"
die_hard

second=$(task second '')
echo "guest 2 boots from the same disk"
boot 2
wait_for 120 "the first task is answered: unknown" status_is "$first" unknown
wait_for 120 "the second task is answered: ok" status_is "$second" ok
[ "$(count first.1)" = 1 ] || fail "the first task ran $(count 'first.*') times"
[ "$(count second.1)" = 1 ] || fail "the second task ran $(count 'second.*') times"
die_hard

rounds=${LAB_ROUNDS-5}
declare -A ids
for round in $(seq 1 "$rounds"); do
    for one in 1 2 3 4; do
        label=task-$round-$one
        ids[$label]=$(task "$label" "sleep 0.$one" --profile paid)
    done
    starts=$(grep -c ' watches ' "$lab/watch.log" || true)
    owns() { [ "$(grep -c ' watches ' "$lab/watch.log")" -gt "$starts" ]; }
    boot "r$round"
    wait_for 60 "the watcher owns its node" owns
    # From here on the tasks are accepted, run and answered, within a second or two.
    sleep "0.$((round * 23 % 10))"
    die_hard
    echo "killed again ($round of $rounds), with $(wc -l <"$runs") runs noted"
done

echo "the last guest answers for all of them"
boot last
for label in "${!ids[@]}"; do
    is_answered() { result_of "${ids[$label]}"; }
    wait_for 120 "$label is answered" is_answered
done
touch "$lab/leave"
clean() { grep -q GUEST-DISK-CLEAN "$lab/console.last"; }
wait_for 60 "the guest lets go of its disk" clean
die_hard

ok=0 unknown=0 spent=0
for label in "${!ids[@]}"; do
    ran=$(count "$label.1")
    case $(status_of "${ids[$label]}") in
    ok) ok=$((ok + 1)) && spent=$((spent + 1)) && [ "$ran" = 1 ] || fail "$label is ok and ran $ran times" ;;
    unknown) unknown=$((unknown + 1)) && spent=$((spent + 1)) && [ "$ran" -le 1 ] || fail "$label ran $ran times" ;;
    *) fail "$label ended $(status_of "${ids[$label]}")" ;;
    esac
done
[ -z "$(sort "$runs" | uniq -d)" ] || fail "ran twice: $(sort "$runs" | uniq -d)"

debugfs -R "rdump /.config /.local $lab/home-b" "$disk" 2>/dev/null
node b dispatchctl audit verify
month=$(node b dispatchctl status --json | tr -d ' \n' | sed -n 's/.*"month":{\([^}]*\)}.*/\1/p')
case $month in
*"\"reserved\":\"0\""*"\"spent\":\"$spent\""* | *"\"spent\":\"$spent\""*"\"reserved\":\"0\""*) ;;
*) fail "$spent USD were paid, and the books say: $month" ;;
esac
echo "shown: a machine that died $((rounds + 2)) times answered every task once ($ok ok, $unknown unknown), ran none twice, and paid each once"
