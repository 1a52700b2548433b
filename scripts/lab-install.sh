#!/usr/bin/env bash
# What a stranger does: installs into an empty directory as an ordinary user and works through the README from there, two
# nodes as two users on one group-writable share; then upgrades, and takes it all away again.
# usage: scripts/lab-install.sh [--bins DIR] [--keep]
#   --bins DIR  installs the commands in DIR; else target/debug is built and taken
#   --keep      leaves the directory for you to look at
# As root it makes two users and removes them again; otherwise both nodes are you, with two homes, and it says so.
# The README's commands are read from the README: a block of code behind the comment `lab: NODE` is run on that node.
set -Eeuo pipefail
cd "$(dirname "$0")/.."
readonly DEADLINE_S=30
# What `systemd-analyze security` may say of the system unit, in tenths; the unit tells what it leaves open and why.
readonly EXPOSURE_MAX=45

keep='' bins=''
while [ $# -gt 0 ]; do
    case $1 in
    --keep) keep=1 ;;
    --bins) bins=$(cd "${2:?--bins needs a directory}" && pwd) && shift ;;
    *) sed -n '2,8s/^# \?//p' "$0" >&2 && exit 2 ;;
    esac
    shift
done
if [ -z "$bins" ]; then
    cargo build --quiet --locked -p dispatch-send -p dispatch-ack -p dispatch-ctl -p dispatch-watch -p dispatch-exec
    bins=$(cd "${CARGO_TARGET_DIR:-target}/debug" && pwd)
fi

skipped=()
title() { printf '\n-- %s\n' "$*"; }
fail() {
    [ "$BASHPID" = $$ ] || exit 1
    trap - ERR
    printf '\nlab-install failed: %s\n' "$*" >&2
    for node in gpubox devbox; do
        [ ! -s "$lab/$node/background.log" ] || { printf -- '--- %s: %s\n' "$node" "$lab/$node/background.log" && tail -n 30 "$lab/$node/background.log"; } >&2
    done
    keep=1
    exit 1
}
until_true() {
    local what=$1 ends=$((SECONDS + DEADLINE_S))
    shift
    until "$@" >/dev/null 2>&1; do
        [ "$SECONDS" -lt "$ends" ] || fail "waited $DEADLINE_S s in vain: $what"
        sleep 0.1
    done
}

# ---- two homes, and users for them where that is possible ----------------------------------------------------------

# Not below a private directory: the two users must get through.
lab=$(mktemp -d /tmp/dispatch-install.XXXXXX)
chmod 755 "$lab"
declare -A user=()
accounts=()
group=
declare -A watcher=()

clean_up() {
    local rc=$? pid account
    trap - EXIT ERR
    touch "$lab/mnt/shared/dispatch/KILLSWITCH" 2>/dev/null || true
    for pid in "${watcher[@]}"; do kill "$pid" 2>/dev/null || true; done
    wait
    for account in "${accounts[@]}"; do userdel "$account" 2>/dev/null || true; done
    [ -z "$group" ] || groupdel "$group" 2>/dev/null || true
    if [ -n "$keep" ]; then
        printf 'Left for you to look at: %s\n' "$lab"
    else
        rm -rf "$lab"
    fi
    exit "$rc"
}
trap clean_up EXIT
trap 'exit 130' INT TERM
trap 'fail "line $LINENO: $BASH_COMMAND"' ERR

mkdir -p "$lab/mnt/shared" "$lab/shims"
if [ "$(id -u)" = 0 ] && command -v useradd >/dev/null && command -v setpriv >/dev/null; then
    group=dlab-$$
    groupadd "$group"
    chgrp "$group" "$lab/mnt/shared"
    chmod 2770 "$lab/mnt/shared"
    for node in gpubox devbox; do
        user[$node]=dlab-$$-$node
        useradd --no-create-home --home-dir "$lab/$node" --shell /bin/bash --gid "$group" "${user[$node]}"
        accounts+=("${user[$node]}")
        install -d -m 700 -o "${user[$node]}" -g "$group" "$lab/$node"
    done
else
    skipped+=("two users (not root): both nodes were $(id -un), with a home each")
    mkdir "$lab/gpubox" "$lab/devbox"
fi
# What brings a file to the other machine: here the other home.
cat >"$lab/shims/scp" <<'SHIM'
#!/bin/sh
# scp -p FILE NODE:NAME
[ "$1" = -p ] || exit 2
cp -p "$2" "$LAB/post/${3%%:*}.${3#*:}" && chmod 644 "$LAB/post/${3%%:*}.${3#*:}"
SHIM
chmod 755 "$lab/shims/scp"
install -d -m 1777 "$lab/post"
delivered() {
    local file
    for file in "$lab/post/$1".*; do
        [ -e "$file" ] || continue
        install -m 600 ${user[$1]:+-o "${user[$1]}"} "$file" "$lab/$1/${file##*/"$1".}"
        rm -f "$file"
    done
}

# on NODE SCRIPT: as that node's user would run it after a login.
on() {
    local node=$1 script=$2 as=()
    delivered "$node"
    [ -z "${user[$node]-}" ] || as=(setpriv --reuid "${user[$node]}" --regid "$group" --init-groups --)
    "${as[@]}" env -i HOME="$lab/$node" USER="${user[$node]-$(id -un)}" LANG=C.UTF-8 NO_COLOR=1 LAB="$lab" \
        PATH="$lab/$node/.local/bin:$lab/shims:/usr/local/bin:/usr/bin:/bin" bash -euo pipefail -c "cd; $script"
}
in_background() {
    on "$1" "echo \$\$ >pid; exec $2" >>"$lab/$1/background.log" 2>&1 &
    until_true "$2 starts on $1" test -s "$lab/$1/pid"
    watcher[$1]=$(cat "$lab/$1/pid")
}

# ---- the README's commands -----------------------------------------------------------------------------------------

# The blocks in order: a line `NODES<TAB>MODE<TAB>number`, and their text in files.
mkdir "$lab/blocks"
awk -v dir="$lab/blocks" '
    /^<!-- lab: (config|exit-codes) -->/ { file = dir "/" $3; printf "" >file; aside = 1; next }
    /^```[a-z]/ && aside { aside = 0; inside = 1; next }
    /^<!-- lab: / { nodes = $3; mode = $4 == "-->" ? "run" : $4; next }
    /^```/ && inside { inside = 0; close(file); next }
    /^```sh/ && nodes != "" { file = dir "/" ++count; printf "" >file; print nodes "\t" mode "\t" count; inside = 1; nodes = ""; next }
    inside { print >file }
' README.md >"$lab/blocks/list"
[ "$(wc -l <"$lab/blocks/list")" -ge 6 ] || fail 'README.md holds too few blocks for the lab'

# What the README writes as ID is the task that was sent last. Its share lies elsewhere here, and nothing is built twice.
id=
run_block() {
    local node=$1 file=$2 line out rc ends
    while IFS= read -r line; do
        case $line in '' | '#'*) continue ;; esac
        line=${line//\/mnt\/shared/$lab\/mnt\/shared}
        line=${line/#scripts\/install.sh/scripts\/install.sh --bins $bins}
        if [[ $line =~ (^|[^A-Za-z])ID([^A-Za-z]|$) ]]; then
            [ -n "$id" ] || fail "no task was sent before: $line"
            line=$(sed -E "s/(^|[^A-Za-z])ID([^A-Za-z]|$)/\1$id\2/g" <<<"$line")
        fi
        printf '%s$ %s\n' "$node" "${line//$lab/\$LAB}"
        ends=$((SECONDS + DEADLINE_S))
        while :; do
            rc=0
            out=$(on "$node" "$line" 2>"$lab/err") || rc=$?
            # What a person would try again a moment later: nothing is known of the task yet, or not enough.
            case $rc in 66 | 75) [ "$SECONDS" -ge "$ends" ] || { sleep 0.2 && continue; } ;; esac
            break
        done
        [ -z "$out" ] || sed "s|$lab|\$LAB|g; s/^/    /" <<<"$out" | sed -n 1,12p
        sed "s|$lab|\$LAB|g; s/^/    /" "$lab/err" | sed -n 1,12p
        [ "$rc" = 0 ] || fail "exit code $rc: $line"
        if [[ $line == *dispatch-send* && $out =~ ^([0-9a-f-]{36})$'\t' ]]; then
            id=${BASH_REMATCH[1]}
        fi
    done <"$file"
}
is_watching() { grep -q ' watches ' "$lab/$1/background.log"; }

walk() {
    local nodes mode number node
    while IFS=$'\t' read -r nodes mode number; do
        for node in ${nodes//,/ }; do
            case $mode in
            run) run_block "$node" "$lab/blocks/$number" </dev/null ;;
            background)
                printf '%s$ %s\n' "$node" "$(cat "$lab/blocks/$number")"
                in_background "$node" "$(cat "$lab/blocks/$number")"
                until_true "the watcher of $node is up" is_watching "$node"
                ;;
            *) fail "README.md: unknown word in a lab comment: $mode" ;;
            esac
        done
    done <"$lab/blocks/list"
}

title 'an empty directory, an ordinary user, and the README'
# What a clone holds. The commands are taken as they are built already.
mkdir "$lab/clone" "$lab/bins"
git ls-files -z --cached --others --exclude-standard | tar -cf - --null -T - | tar -xf - -C "$lab/clone" --no-same-owner
install -m 755 "$bins"/dispatch-{send,ack,watch,exec} "$bins/dispatchctl" "$lab/bins"
bins=$lab/bins
chmod -R a+rX "$lab/clone" "$lab/bins"
for node in gpubox devbox; do
    on "$node" 'mkdir -m 700 .ssh && ssh-keygen -q -t ed25519 -N "" -C "you@$(basename "$HOME")" -f .ssh/id_ed25519'
    on "$node" 'echo "echo one; echo two" >task.md && ln -s "$LAB/clone/scripts" scripts'
done
walk
[ -n "$id" ] || fail 'the README sends no task'

title 'what else the README says'
dir=$lab/gpubox/.config/dispatch
{ sed -n '/^root = /p; /^node = /p; /^cluster = /p' "$dir/dispatch.toml" && cat "$lab/blocks/config"; } >"$dir/readme.toml"
chmod 644 "$dir/readme.toml"
on gpubox 'dispatchctl --quiet --config .config/dispatch/readme.toml config check' >"$lab/said" ||
    fail "the README's configuration does not hold"
cmp -s "$lab/blocks/exit-codes" <(on gpubox 'dispatchctl --help' | sed -n '/^Exit codes:/,$p' | sed 1d) || fail "the README's exit codes are not those of --help"
sed '/^## What this release does not have/,/^## /d' README.md | grep -oE 'dispatchctl [a-z]+( (show|verify|check|eval|list))?' | sort -u >"$lab/verbs"
while read -r words; do
    on gpubox "$words --help" >/dev/null </dev/null || fail "the README names \`$words\`, which is not there"
done <"$lab/verbs"
printf 'its configuration holds, its exit codes and its %s verbs are those of the commands\n' "$(wc -l <"$lab/verbs")"

title 'a newer release, while a task runs'
out=$(on devbox "dispatch-send --to gpubox --request 'echo started >started; until [ -e \"$lab/gpubox/go\" ]; do sleep 0.1; done; echo went on'")
id=${out%%$'\t'*}
is_running() { on gpubox "dispatchctl list --state running --json" >"$lab/said" && grep -q "$id" "$lab/said"; }
until_true 'the task runs' is_running
# Other bytes, the same program.
for file in "$bins"/*; do printf 'newer' >>"$file"; done
on gpubox "scripts/install.sh --bins $bins" | tee "$lab/said"
grep -q '0 new, 5 replaced' "$lab/said" || fail 'the upgrade did not replace exactly the five commands'
kill -0 "${watcher[gpubox]}" || fail 'the watcher did not live through the upgrade'
on gpubox 'touch go'
[ "$(on devbox "dispatchctl wait $id")" = 'went on' ] || fail 'the task did not live through the upgrade'
on gpubox "scripts/install.sh --bins $bins" >"$lab/said"
grep -q '0 new, 0 replaced' "$lab/said" || fail 'a second run is not idle'

title 'pages, completions and units'
prefix=$lab/gpubox/.local
pages=0
command -v man >/dev/null || skipped+=('the pages (man is not installed)')
! command -v man >/dev/null || for page in "$prefix"/share/man/man1/*.1; do
    pages=$((pages + 1))
    said=$(LC_ALL=C.UTF-8 MANROFFSEQ='' MANWIDTH=80 man --warnings -E UTF-8 -l -Tutf8 -Z "$page" 2>&1 >/dev/null) || true
    [ -z "$said" ] || fail "man --warnings: $said"
done
[ "$pages" = 0 ] || printf '%s pages without a warning\n' "$pages"

bash -euo pipefail -c '
    for file in "$1"/*; do . "$file"; complete -p "${file##*/}" >/dev/null; done
    COMP_WORDS=(dispatchctl und) COMP_CWORD=1 COMPREPLY=()
    set +u
    _dispatchctl dispatchctl und dispatchctl
    [ "${COMPREPLY[*]}" = undrain ]
    eval "$("$2" completions bash)"
' bash "$prefix/share/bash-completion/completions" "$prefix/bin/dispatchctl" || fail 'bash does not take the completions'
if command -v zsh >/dev/null; then
    zsh -fc '
        fpath=($1 $fpath) && autoload -U compinit && compinit -u -d $2/zcompdump
        for file in $1/_*; do name=${file:t}
            [[ ${_comps[${name#_}]} = $name ]] && autoload -U +X $name || exit 1
        done
        source <($3 completions zsh)
    ' zsh "$prefix/share/zsh/site-functions" "$lab" "$prefix/bin/dispatchctl" || fail 'zsh does not take the completions'
else
    skipped+=('completions of zsh (not installed)')
fi
if command -v fish >/dev/null; then
    # It looks for the completions of commands only that it finds.
    HOME=$lab/fish PATH=$prefix/bin:$PATH XDG_DATA_DIRS=$prefix/share fish -c '
        contains undrain (complete -C "dispatchctl und" | string split -f1 \t); or exit 1
        for command in dispatch-send dispatch-ack dispatch-watch dispatch-exec
            test (count (complete -C "$command --")) -gt 1; or exit 1
        end
    ' || fail 'fish does not take the completions'
else
    skipped+=('completions of fish (not installed)')
fi
printf 'completions load\n'

# verify UNIT BINARIES…: what systemd-analyze says of it; nothing else is on its mind here.
if command -v systemd-analyze >/dev/null; then
    DESTDIR=$lab/root scripts/install.sh --system --bins "$bins" >/dev/null
    mkdir -m 700 "$lab/units" "$lab/runtime"
    cp "$prefix/share/systemd/user/dispatch-watch.service" "$lab/units"
    sed "s|=/usr/local/|=$lab/root/usr/local/|" "$lab/root/usr/local/lib/systemd/system/dispatch-watch@.service" \
        >"$lab/units/dispatch-watch@.service"
    verify() { MANPATH=$prefix/share/man XDG_RUNTIME_DIR=$lab/runtime systemd-analyze "$@" 2>&1 | grep -v '^$' || true; }
    said=$(verify --user verify "$lab/units/dispatch-watch.service"; verify verify "$lab/units/dispatch-watch@gpubox.service")
    [ -z "$said" ] || fail "systemd-analyze verify: $said"
    said=$(systemd-analyze security --offline=yes --threshold="$EXPOSURE_MAX" "$lab/units/dispatch-watch@.service" 2>&1) ||
        fail "systemd-analyze security: $(tail -n 1 <<<"$said")"
    printf 'units verify (not started: no systemd runs here); %s\n' "$(tail -n 1 <<<"$said" | sed 's/.*Overall/overall/')"
    DESTDIR=$lab/root scripts/install.sh --uninstall --system | sed 's/^/    /' | sed -n 1p
    [ -z "$(find "$lab/root" -type f)" ] || fail "left behind: $(find "$lab/root" -type f)"
else
    skipped+=('the units (systemd-analyze is not installed)')
fi

title 'for a machine, with a user of its own'
# In a private view of the file system: nothing of this machine is changed.
machine() {
    unshare --mount --propagation private -- env LAB="$lab" BINS="$bins" NO_COLOR=1 bash -euo pipefail -c '
        mkdir -p "$LAB/machine/lib" "$LAB/machine/share"
        cp -a /etc "$LAB/machine/etc" && mount --bind "$LAB/machine/etc" /etc
        mount -t tmpfs -o mode=755 tmpfs /usr/local && mount --bind "$LAB/machine/lib" /var/lib
        rm -rf /etc/dispatch
        cd "$LAB/clone"
        scripts/install.sh --system --bins "$BINS"
        chgrp dispatch "$LAB/machine/share" && chmod 2770 "$LAB/machine/share" && chmod 755 "$LAB/machine"
        cd /
        service() { setpriv --reuid dispatch --regid dispatch --init-groups --reset-env -- "$@"; }
        service dispatchctl --config /etc/dispatch/dispatch.toml init --root "$LAB/machine/share/dispatch" \
            --node gpubox --peer devbox --group >/dev/null
        service dispatchctl --quiet config check | grep "^state ="
        # As the unit starts it.
        start=$(sed -n "s/^ExecStart=//p" /usr/local/lib/systemd/system/dispatch-watch@.service)
        service ${start//%i/gpubox} --once
        service dispatchctl status | sed -n 1,2p
        said=$(systemd-analyze verify dispatch-watch@gpubox.service 2>&1 | grep -F dispatch || true)
        [ -z "$said" ] || { echo "$said" >&2 && exit 1; }
        /usr/local/share/dispatch/install.sh --uninstall --system >/dev/null
        [ -z "$(find /usr/local -type f)" ] || { find /usr/local -type f >&2 && exit 1; }
        [ -f /etc/dispatch/dispatch.toml ] && [ -f /var/lib/dispatch/.local/state/dispatch/gpubox/ledger.db ]
    ' 2>&1 | sed "s|$lab|\$LAB|g; s/^/    /"
}
if [ "$(id -u)" = 0 ] && unshare --mount --propagation private -- mount -t tmpfs tmpfs /usr/local 2>/dev/null; then
    machine || fail 'the system install does not work'
else
    skipped+=('the system install (no root, or no private mounts here)')
fi

title 'and away again'
for node in gpubox devbox; do
    echo changed >>"$lab/$node/.local/share/man/man1/dispatchctl.1"
    on "$node" '"$HOME/.local/share/dispatch/install.sh" --uninstall' | sed "s|$lab|\$LAB|g; s/^/    /"
    left=$(cd "$lab/$node/.local" && find . -type f ! -path './state/*')
    [ "$left" = ./share/man/man1/dispatchctl.1 ] || fail "what is left on $node: $left"
    for kept in .config/dispatch/dispatch.toml ".local/state/dispatch/$node/ledger.db"; do
        [ -f "$lab/$node/$kept" ] || fail "$kept is gone from $node"
    done
done

printf '\nlab-install: everything held\n'
[ ${#skipped[@]} -eq 0 ] || printf 'lab-install: skipped: %s\n' "${skipped[@]}"
