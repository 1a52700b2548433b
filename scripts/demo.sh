#!/usr/bin/env bash
# Dispatch in two minutes: two nodes in one temporary directory hand each other tasks, and every promise is shown once.
# usage: scripts/demo.sh [--keep] [--bins DIR]
#   --keep      leaves the directory for you to look at
#   --bins DIR  takes the commands from DIR in place of building them
# Needs Rust and a C compiler for the build, and ssh-keygen. No account, no network after the build, no root.
set -Eeuo pipefail
cd "$(dirname "$0")/.."

readonly DEADLINE_S=20

keep=
bins=
while [ $# -gt 0 ]; do
    case $1 in
    --keep) keep=1 ;;
    --bins) bins=$(cd "${2:?--bins needs a directory}" && pwd) && shift ;;
    *) sed -n '2,6s/^# \?//p' "$0" >&2 && exit 2 ;;
    esac
    shift
done

if [ -t 1 ] && [ -z "${NO_COLOR-}" ]; then
    bold=$'\e[1m' dim=$'\e[2m' plain=$'\e[0m'
else
    bold='' dim='' plain=''
fi

# ---- how it tells and how it fails ---------------------------------------------------------------------------------

step_count=0
title() { step_count=$((step_count + 1)) && printf '\n%s%s. %s%s\n' "$bold" "$step_count" "$*" "$plain"; }
tell() { printf '%s\n' "$*"; }

fail() {
    # A failure inside $(…) shows as one of the line that it stands in.
    [ "$BASHPID" = $$ ] || exit 1
    trap - ERR
    printf '\ndemo failed: %s\n' "$*" >&2
    for node in gpubox devbox; do
        if [ -s "$dir/$node/watch.log" ]; then
            printf -- '--- the last lines of the watcher of %s (%s)\n' "$node" "$dir/$node/watch.log" >&2
            tail -n 40 "$dir/$node/watch.log" >&2
        fi
    done
    keep=1
    exit 1
}

# on NODE COMMAND…: runs it as that node, with a configuration and a state directory of its own.
on() {
    local node=$1
    shift
    XDG_CONFIG_HOME=$dir/$node/config XDG_STATE_HOME=$dir/$node/state "$@"
}

# The words of a command as a person would type them.
typed() {
    local word
    for word in "$@"; do
        case $word in
        *[!A-Za-z0-9_./:=@-]*) printf " '%s'" "${word//\'/\'\\\'\'}" ;;
        *) printf ' %s' "$word" ;;
        esac
    done
}
shorter() { sed "s|$dir|\$DEMO|g"; }
indented() { sed 's|^|    |'; }

# show NODE COMMAND…: the same, with what is typed and what comes back.
show() {
    local node=$1 rc=0
    shift
    printf '\n%s%s$%s%s\n' "$dim" "$node" "$(typed "$@" | shorter)" "$plain"
    on "$node" "$@" 2>&1 | shorter | indented || rc=$?
    [ "$rc" = 0 ] || fail "\`$*\` on $node ended with exit code $rc"
}

# The id of the task that NODE sent or received last.
newest() { on "$1" dispatchctl list --limit 1 --json | sed 's/.*"id":"\([^"]*\)".*/\1/'; }

# until_true WHAT COMMAND…: waits for a fact, not for a time.
until_true() {
    local what=$1 ends=$((SECONDS + DEADLINE_S))
    shift
    until "$@" >/dev/null 2>&1; do
        [ "$SECONDS" -lt "$ends" ] || fail "waited $DEADLINE_S s in vain: $what"
        sleep 0.05
    done
}

# ---- what it starts, it ends ---------------------------------------------------------------------------------------

declare -A watcher=()

start_watcher() {
    local node=$1
    # Not by `on`: a function in the background is a shell of its own, and $! would be that one.
    XDG_CONFIG_HOME=$dir/$node/config XDG_STATE_HOME=$dir/$node/state \
        dispatch-watch >>"$dir/$node/watch.log" 2>&1 &
    watcher[$node]=$!
    until_true "the watcher of $node is up" is_up_or_gone "$node"
    kill -0 "${watcher[$node]}" 2>/dev/null || fail "the watcher of $node ended"
}
is_up_or_gone() { grep -q ' watches ' "$dir/$1/watch.log" || ! kill -0 "${watcher[$1]}"; }

executors() {
    local lock
    for lock in "$dir"/*/state/dispatch/*/jobs/*/*/*/lock; do
        [ -e "$lock" ] && [ ! -e "${lock%lock}outcome.json" ] && echo "$lock"
    done
    return 0
}
# The file holds pid and start time.
pid_in() { cut -d' ' -f1 "$1"; }
no_executor() { [ -z "$(executors)" ]; }

clean_up() {
    local rc=$? pid lock ends
    trap - EXIT ERR
    if [ -d "$dir/share" ] && ! no_executor; then
        # Executors outlive their watcher on purpose: the killswitch ends what still runs.
        printf 'kill\nthe demo ends\n' >"$dir/share/KILLSWITCH"
        ends=$((SECONDS + 10))
        until no_executor || [ "$SECONDS" -ge "$ends" ]; do sleep 0.1; done
        for lock in $(executors); do kill -KILL "$(pid_in "$lock")" 2>/dev/null || true; done
    fi
    for pid in "${watcher[@]}"; do kill "$pid" 2>/dev/null || true; done
    wait
    if [ -n "$keep" ]; then
        printf '\nLeft for you to look at: %s\n' "$dir"
    else
        rm -rf "$dir"
    fi
    exit "$rc"
}

# ---- what it needs -------------------------------------------------------------------------------------------------

if ! command -v ssh-keygen >/dev/null; then
    echo "ssh-keygen is missing: people sign their decisions with it." >&2
    echo "Debian, Ubuntu: apt-get install openssh-client; Fedora: dnf install openssh-clients; Alpine: apk add openssh-keygen" >&2
    exit 1
fi

tell "${bold}Dispatch: machines that mount the same directory hand each other sealed tasks.${plain}"
tell 'This demo plays both machines on this one: "devbox" asks, "gpubox" works. It takes about five seconds,'
tell 'and one to three minutes more the first time, for compiling the commands (SQLite, in C, takes the longest).'

if [ -z "$bins" ]; then
    if ! command -v cargo >/dev/null; then
        echo "cargo is missing: install Rust from https://rustup.rs, then run this again." >&2
        exit 1
    fi
    tell ''
    tell 'Building with cargo build (unoptimised; release builds are not needed here) ...'
    quiet=--quiet
    [ ! -t 2 ] || quiet=
    cargo build --locked $quiet -p dispatch-send -p dispatch-ack -p dispatch-ctl -p dispatch-watch -p dispatch-exec
    bins=$(cd "${CARGO_TARGET_DIR:-target}/debug" && pwd)
fi

# What the caller's own nodes are configured with has no say here.
unset "${!DISPATCH_@}" STATE_DIRECTORY NOTIFY_SOCKET WATCHDOG_USEC
PATH=$bins:$PATH
export PATH NO_COLOR=1
dir=$(mktemp -d "${TMPDIR:-/tmp}/dispatch-demo.XXXXXX")
trap clean_up EXIT
trap 'exit 130' INT TERM
trap 'fail "line $LINENO: $BASH_COMMAND"' ERR
mkdir "$dir/share" "$dir/gpubox" "$dir/devbox"

tell ''
tell "Everything it makes is in one directory: DEMO=$dir"

# ---- the steps -----------------------------------------------------------------------------------------------------

title 'Two nodes, one shared directory'
tell 'On the first machine, init makes keys, a configuration and a ledger of its own, and a join file for the other machine.'
tell 'The key in people'"'"'s hands is an ordinary OpenSSH key; the demo makes a throw-away one for "you".'
ssh-keygen -q -t ed25519 -N '' -C you@demo -f "$dir/your_key"
show gpubox dispatchctl init --root "$dir/share" --node gpubox --peer devbox --approver "$dir/your_key.pub"
tell ''
tell 'The second machine reads the join file. That is all that both have to know of each other.'
show devbox dispatchctl init --join "$dir/gpubox/config/dispatch/join-devbox.json" --root "$dir/share"
rm "$dir/gpubox/config/dispatch/join-devbox.json"
tell ''
tell 'Each machine runs one daemon, the watcher.'
start_watcher gpubox
start_watcher devbox
printf '\n'
cat "$dir/gpubox/watch.log" "$dir/devbox/watch.log" | shorter | indented

title 'A task goes round'
tell 'devbox seals a task and puts it into the shared directory. gpubox verifies the seal, runs the request with the program'
tell 'that its own configuration names (here /bin/sh), seals the result, and devbox prints it only if the seal verifies.'
show devbox dispatch-send --to gpubox --wait --request 'echo "Hello from process $$ on $DISPATCH_NODE, task of $DISPATCH_SENDER"'

title 'The shared directory is only a carrier'
tell 'Somebody who can write the share changes one character of that sealed task and puts it back, and puts it back unchanged.'
tell 'Neither runs: the first has a bad signature, the second was taken before. What was refused is kept as evidence.'
task=$(newest devbox)
lane=$dir/share/devbox-to-gpubox
forged=${task%?}$(printf '%x' $(((16#${task: -1} + 1) % 16)))
until_true 'the task is filed in done/' test -e "$lane/done/$task.json"
sed -E -e 's/("payload":".{40})Q/\1R/' -e t -e 's/("payload":".{40})./\1Q/' "$lane/done/$task.json" >"$lane/tmp/forged"
mv "$lane/tmp/forged" "$lane/inbox/$forged.json"
cp "$lane/done/$task.json" "$lane/tmp/copy"
mv "$lane/tmp/copy" "$lane/inbox/$task.json"
until_true 'the changed task is set aside' compgen -G "$lane/rejected/$forged.*.reason.json"
until_true 'the copy is taken away' test ! -e "$lane/inbox/$task.json"
printf '\n'
for file in "$lane/rejected/$forged".*.reason.json; do
    printf '%s\n    %s\n' "$file" "$(cat "$file")" | shorter | indented
    grep -q '"code":"bad_signature"' "$file" || fail 'the changed task was refused for another reason'
done
attempts=("$dir/gpubox/state/dispatch/gpubox/jobs/devbox/$task"/*/)
printf '    the first task still has %s attempt\n' "${#attempts[@]}"
[ "${#attempts[@]}" -eq 1 ] || fail 'the copy ran'

title 'A person decides'
tell 'This task asks for a human yes. gpubox parks it; nothing starts. (gpubox can demand this for every task, too.)'
gated=$(on devbox dispatch-send --to gpubox --require-ack --request 'echo "approved, so it ran"' 2>/dev/null | cut -f1)
is_parked() { on gpubox dispatch-ack --json | grep -q "$gated"; }
until_true 'the gated task is parked' is_parked
show gpubox dispatch-ack
tell ''
tell 'You look at what exactly would run, and approve it with your key. Your signature is bound to this task and these terms.'
show gpubox dispatch-ack "$gated" --yes --key "$dir/your_key" --reason 'looked at it'
tell ''
tell 'On devbox the answer arrives, and says who decided.'
show devbox dispatchctl wait "$gated"
show devbox dispatchctl result "$gated"

title 'What is written down, and where'
tell 'Each node keeps a hash-chained audit in its own ledger. The other node repeats its newest head in every heartbeat, so that'
tell 'what was witnessed cannot be rewritten unnoticed.'
show gpubox dispatchctl audit show --task "$gated"
show gpubox dispatchctl audit verify
tell ''
tell 'On the share lie the sealed messages of this lane (anybody who mounts it can read them, nobody can change them unnoticed):'
printf '\n'
(cd "$dir" && find share/devbox-to-gpubox -type f | sort) | sed 's|^|    $DEMO/|'
tell ''
tell 'On its own disk each node keeps what it believes: the ledger (tasks, money, audit), its keys, and the job directories.'
printf '\n'
(cd "$dir" && find gpubox/config gpubox/state -type f ! -path '*/jobs/*' ! -name '*-shm' ! -name '*-wal' | sort) | sed 's|^|    $DEMO/|'

title 'Stop'
tell 'The killswitch is a file on the share: while it is there, no node starts anything.'
show devbox dispatchctl kill 'demo: something looks wrong'
tell ''
tell 'A task sent meanwhile says so, and waits.'
show devbox dispatch-send --to gpubox --request 'echo "ran after the resume"'
waiting=$(newest devbox)
# Long enough for a watcher that would start it: tasks above ran within a tenth of that.
sleep 1
[ -e "$lane/inbox/$waiting.json" ] || fail 'the task left the inbox under the killswitch'
show devbox dispatchctl show "$waiting"
tell ''
tell 'To go on takes a person on each machine: removing the file is not enough, an agent with access to the share could do that.'
show devbox dispatchctl resume --wait 0s
show gpubox dispatchctl resume --wait 0s
show devbox dispatchctl wait "$waiting"

title 'A crash loses nothing and runs nothing twice'
tell 'gpubox works on a task that writes a line into a file when it starts. Its watcher is killed with SIGKILL meanwhile.'
crash=$(on devbox dispatch-send --to gpubox --request "echo started >>$dir/starts
until [ -e $dir/go ]; do sleep 0.1; done
echo 'finished, although the watcher died'" 2>/dev/null | cut -f1)
until_true 'the task runs' test -s "$dir/starts"
kill -KILL "${watcher[gpubox]}"
wait "${watcher[gpubox]}" 2>/dev/null || true
printf '\n    watcher of gpubox (pid %s) is dead; the task goes on under its own executor\n' "${watcher[gpubox]}"
tell ''
tell 'A new watcher starts, reads the ledger, finds the executor alive and adopts it.'
: >"$dir/gpubox/watch.log"
start_watcher gpubox
until_true 'the new watcher adopts the task' grep -q adopted "$dir/gpubox/watch.log"
printf '\n'
shorter <"$dir/gpubox/watch.log" | indented
touch "$dir/go"
show devbox dispatchctl wait "$crash"
printf '\n    started %s time(s)\n' "$(wc -l <"$dir/starts" | tr -d ' ')"
[ "$(wc -l <"$dir/starts")" -eq 1 ] || fail 'the task started more than once'
show gpubox dispatchctl audit verify

title 'Done'
show gpubox dispatchctl list
tell ''
tell 'Every step above was checked. README.md says how to do the same on two real machines.'
