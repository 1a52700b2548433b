#!/usr/bin/env bash
# Installs Dispatch, or takes it away again.
# usage: scripts/install.sh [--prefix DIR] [--bins DIR]              for you alone; never needs root
#        scripts/install.sh --system [--prefix DIR] [--bins DIR]     for the machine: user and group `dispatch`
#        scripts/install.sh --uninstall [--system] [--prefix DIR]
#   --prefix DIR  where to (~/.local; with --system /usr/local)
#   --bins DIR    takes the five commands from DIR; else `cargo build --release --locked` makes them
#   --system      also user and group `dispatch`, /etc/dispatch, /var/lib/dispatch and the unit dispatch-watch@.service
#   --uninstall   removes what was installed, and nothing else: configuration, keys and state stay
# DESTDIR is put before every path that is written (for packages); no user is made then.
# Run again it upgrades: each file is replaced in one step, so that what runs goes on.
set -euo pipefail
umask 022

readonly COMMANDS=(dispatch-send dispatch-ack dispatch-watch dispatch-exec dispatchctl)
readonly ACCOUNT=dispatch
readonly CONFIGURATION=/etc/dispatch
readonly STATE=/var/lib/dispatch

say() { printf '%s\n' "$*"; }
fail() {
    printf 'install: %s\n' "$1" >&2
    [ $# -lt 2 ] || printf '  %s\n' "${@:2}" >&2
    exit 1
}
usage() { sed -n '2,11s/^# \?//p' "$0"; }

# ---- what is wanted ------------------------------------------------------------------------------------------------

here=$(cd "$(dirname "$0")" && pwd)
system='' uninstall='' prefix='' bins=''
while [ $# -gt 0 ]; do
    case $1 in
    --prefix) prefix=${2:?--prefix needs a directory} && shift ;;
    --prefix=*) prefix=${1#*=} ;;
    --bins) bins=${2:?--bins needs a directory} && shift ;;
    --bins=*) bins=${1#*=} ;;
    --system) system=1 ;;
    --uninstall) uninstall=1 ;;
    -h | --help) usage && exit 0 ;;
    *) usage >&2 && exit 2 ;;
    esac
    shift
done
DESTDIR=${DESTDIR-}
DESTDIR=${DESTDIR%/}

if [ -z "$prefix" ]; then
    if [ -n "$uninstall" ] && [ -f "$here/manifest" ]; then
        # The copy that was installed knows where it lies.
        prefix=${here%/share/dispatch}
        prefix=${prefix#"$DESTDIR"}
    elif [ -n "$system" ]; then
        prefix=/usr/local
    else
        prefix=${HOME:?neither --prefix nor HOME is set}/.local
    fi
fi
case $prefix in
/*) ;;
*) prefix=$PWD/$prefix ;;
esac
prefix=$(realpath -ms -- "$prefix")
case $prefix in
*[$'\n\t\\"'\''%$']*) fail "the prefix \`$prefix\` holds a character that a unit file cannot name" ;;
esac

readonly manifest=$prefix/share/dispatch/manifest
case $prefix in
/usr | /usr/local) system_units=$prefix/lib/systemd/system ;;
*) system_units=/etc/systemd/system ;;
esac

# ---- the manifest: one line for each file, digest and path; one for each directory that was made -------------------

digest() { sha256sum <"$1" | cut -d' ' -f1; }
# A line stands for a file that is ours as long as its bytes are those that were installed.
is_ours() { [ -f "$DESTDIR$2" ] && [ ! -L "$DESTDIR$2" ] && [ "$(digest "$DESTDIR$2")" = "$1" ]; }

# remove_listed MANIFEST [KEPT-MANIFEST]: removes what the first lists and the second does not.
remove_listed() {
    local word path gone=0 changed=() dirs=()
    while read -r word path; do
        if [ -n "${2-}" ] && grep -qxF -- "$path" <(cut -d' ' -f2- "$2"); then
            continue
        fi
        if [ "$word" = dir ]; then
            dirs+=("$path")
        elif is_ours "$word" "$path"; then
            rm -f -- "$DESTDIR$path"
            gone=$((gone + 1))
        else
            changed+=("$path")
        fi
    done <"$1"
    removed=$gone
    # After an interrupted upgrade two lines stand for a file; what one of them removed is not there any more.
    [ ${#changed[@]} -eq 0 ] || printf '%s\n' "${changed[@]}" | LC_ALL=C sort -u | while read -r path; do
        [ ! -e "$DESTDIR$path" ] || say "  kept $DESTDIR$path: it was changed since it was installed"
    done
    # Innermost first; one that holds something else stays.
    if [ ${#dirs[@]} -gt 0 ]; then
        printf '%s\n' "${dirs[@]}" | LC_ALL=C sort -ru | while read -r path; do
            rmdir -- "$DESTDIR$path" 2>/dev/null || true
        done
    fi
}

if [ -n "$uninstall" ]; then
    [ -f "$DESTDIR$manifest" ] ||
        fail "there is no $DESTDIR$manifest: nothing was installed there" "name the prefix it was installed with: --prefix DIR"
    [ -w "$DESTDIR$prefix/bin" ] || fail "no right to write in $DESTDIR$prefix/bin" "run it as who installed it"
    list=$(mktemp)
    trap 'rm -f "$list"' EXIT
    cp "$DESTDIR$manifest" "$list"
    rm -f "$DESTDIR$manifest"
    remove_listed "$list"
    say "Removed $removed files below $DESTDIR$prefix."
    say "Configuration, keys and state were left: ~/.config/dispatch, ~/.local/state/dispatch, $CONFIGURATION, $STATE."
    say "A watcher that runs goes on until it is stopped: systemctl --user stop dispatch-watch, or by its process id."
    if [ "$(id -u)" = 0 ] && id "$ACCOUNT" >/dev/null 2>&1; then
        say "The user \`$ACCOUNT\` was left, because files may belong to it: userdel $ACCOUNT"
    fi
    exit 0
fi

# ---- what it needs -------------------------------------------------------------------------------------------------

if [ -n "$system" ] && [ -z "$DESTDIR" ] && [ "$(id -u)" != 0 ]; then
    fail "--system needs root: it makes a user and writes below $prefix and /etc" "for you alone: scripts/install.sh"
fi
source=$here/..
[ -f "$source/Cargo.toml" ] && [ -d "$source/systemd" ] ||
    fail "this is not a clone of the repository; only --uninstall works from here"

if [ -z "$bins" ]; then
    command -v cargo >/dev/null || fail "cargo is missing" "install Rust from https://rustup.rs, or name built commands: --bins DIR"
    say "Building with cargo build --release --locked ..."
    packages=()
    for command in "${COMMANDS[@]}"; do packages+=(-p "${command/dispatchctl/dispatch-ctl}"); done
    quiet=--quiet
    [ ! -t 2 ] || quiet=
    (cd "$source" && cargo build --release --locked $quiet "${packages[@]}")
    bins=$source/target/release
    [ -z "${CARGO_TARGET_DIR-}" ] || bins=$(cd "$source" && realpath -- "$CARGO_TARGET_DIR")/release
fi
bins=$(cd "$bins" && pwd)
for command in "${COMMANDS[@]}"; do
    [ -x "$bins/$command" ] || fail "there is no $bins/$command: all five commands must lie in one directory"
done
version=$("$bins/dispatchctl" --version) || fail "$bins/dispatchctl does not run here"
for command in "${COMMANDS[@]}"; do
    [ "$("$bins/$command" --version)" = "$command ${version#dispatchctl }" ] ||
        fail "$bins/$command is not of the same release as $bins/dispatchctl (${version#dispatchctl })"
done

# ---- everything is laid out beside first ---------------------------------------------------------------------------

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
stage=$work/stage made_here=$work/made
mkdir "$stage" "$made_here"

# lay MODE FROM TO
lay() { mkdir -p "$stage$(dirname "$3")" && install -m "$1" -- "$2" "$stage$3"; }
lay_dir() {
    local file
    for file in "$1"/*; do lay 644 "$file" "$2/${file##*/}"; done
}
# A path as ExecStart takes it; a user's home is named the same for everybody.
exec_path=$prefix/bin/dispatch-watch
case $exec_path in *' '*) exec_path="\"$exec_path\"" ;; esac
lay_unit() {
    sed "s|^ExecStart=[^ ]*|ExecStart=${exec_path//&/\\&}|" "$source/systemd/$1" >"$work/unit"
    lay 644 "$work/unit" "$2/$1"
    # Older releases do not know its keys and complain.
    if [ "$(systemctl --version 2>/dev/null | sed -n '1s/^systemd \([0-9]*\).*/\1/p')" -ge 254 ] 2>/dev/null; then
        lay 644 "$source/systemd/dispatch-backoff.conf" "$2/$1.d/dispatch-backoff.conf"
    fi
}

for command in "${COMMANDS[@]}"; do lay 755 "$bins/$command" "$prefix/bin/$command"; done
"$bins/dispatchctl" --quiet man "$made_here/man"
"$bins/dispatchctl" --quiet completions bash --dir "$made_here/bash"
"$bins/dispatchctl" --quiet completions zsh --dir "$made_here/zsh"
"$bins/dispatchctl" --quiet completions fish --dir "$made_here/fish"
lay_dir "$made_here/man" "$prefix/share/man/man1"
lay_dir "$made_here/bash" "$prefix/share/bash-completion/completions"
lay_dir "$made_here/zsh" "$prefix/share/zsh/site-functions"
lay_dir "$made_here/fish" "$prefix/share/fish/vendor_completions.d"
lay 755 "$here/install.sh" "$prefix/share/dispatch/install.sh"
# Examples for [notify].
for file in "$source"/scripts/notify-*.sh; do lay 755 "$file" "$prefix/share/dispatch/${file##*/}"; done
lay_unit dispatch-watch.service "$prefix/share/systemd/user"
[ -z "$system" ] || lay_unit dispatch-watch@.service "$system_units"

# ---- then put in place ---------------------------------------------------------------------------------------------

# Directories that are made now, outermost first, so that they can go again.
made=()
make_dir() {
    local dir=$1 missing=()
    while [ ! -d "$DESTDIR$dir" ]; do
        missing=("$dir" "${missing[@]}")
        dir=$(dirname "$dir")
    done
    for dir in "${missing[@]}"; do
        mkdir -- "$DESTDIR$dir" || fail "cannot make $DESTDIR$dir" "choose another --prefix, or run it as somebody who may write there"
        made+=("$dir")
    done
}

[ -z "$DESTDIR" ] || mkdir -p -- "$DESTDIR"
mapfile -t files < <(cd "$stage" && find . -type f | sed 's|^\.||' | LC_ALL=C sort)
for file in "$manifest" "${files[@]}"; do make_dir "$(dirname "$file")"; done
before=$work/before
: >"$before"
[ ! -f "$DESTDIR$manifest" ] || cp -- "$DESTDIR$manifest" "$before"

# put_manifest FILE...: the lines of these files, in one step.
put_manifest() {
    cat -- "$@" >"$DESTDIR$manifest.new"
    mv -f -- "$DESTDIR$manifest.new" "$DESTDIR$manifest"
}
{
    for file in "${files[@]}"; do printf '%s %s\n' "$(digest "$stage$file")" "$file"; done
    [ ${#made[@]} -eq 0 ] || printf 'dir %s\n' "${made[@]}"
    grep '^dir ' "$before" || true
} >"$work/now"
# Before anything is there, so that an interrupted run can be taken back too.
put_manifest "$work/now" "$before"

new=0 updated=0 same=0
for file in "${files[@]}"; do
    to=$DESTDIR$file
    if [ -f "$to" ] && [ ! -L "$to" ] && cmp -s -- "$stage$file" "$to"; then
        same=$((same + 1))
        continue
    fi
    if [ -e "$to" ]; then
        updated=$((updated + 1))
        grep -qxF -- "$(digest "$to") $file" "$before" || say "  replaced $to, which was not as this script installs it"
    else
        new=$((new + 1))
    fi
    # In one step: a command that runs keeps its old file, one that starts meanwhile finds the old or the new.
    temporary=$(dirname "$to")/.${file##*/}.new
    cp -p -- "$stage$file" "$temporary"
    sync -- "$temporary" 2>/dev/null || true
    mv -fT -- "$temporary" "$to"
done
# What an older release had and this one has not.
remove_listed "$before" "$work/now"
put_manifest "$work/now"

say "Dispatch ${version#dispatchctl } is below $DESTDIR$prefix: $new new, $updated replaced, $same as they were, $removed removed."

# ---- what only a machine has ---------------------------------------------------------------------------------------

if [ -n "$system" ] && [ -z "$DESTDIR" ]; then
    if ! getent group "$ACCOUNT" >/dev/null; then
        groupadd --system "$ACCOUNT"
        say "Made the group \`$ACCOUNT\`."
    fi
    if ! id "$ACCOUNT" >/dev/null 2>&1; then
        shell=$(command -v nologin || echo /usr/sbin/nologin)
        useradd --system --gid "$ACCOUNT" --home-dir "$STATE" --no-create-home --shell "$shell" "$ACCOUNT"
        say "Made the user \`$ACCOUNT\`."
    fi
    for dir in "$CONFIGURATION" "$STATE"; do
        [ -d "$dir" ] || say "Made $dir, of user and group \`$ACCOUNT\`."
        [ -d "$dir" ] || install -d -m 750 -o "$ACCOUNT" -g "$ACCOUNT" -- "$dir"
    done
elif [ -n "$system" ]; then
    say "With DESTDIR no user is made: the package must make user and group \`$ACCOUNT\`, $CONFIGURATION and $STATE (0750, of both)."
fi

# ---- and what to do next -------------------------------------------------------------------------------------------

say ""
if [ -n "$DESTDIR" ]; then
    exit 0
fi
if [ -s "$before" ]; then
    [ "$updated" -gt 0 ] || exit 0
    say "A watcher that runs goes on as it is; restart it to use this release (running agents are not touched):"
    if [ -n "$system" ]; then
        say "  systemctl daemon-reload && systemctl try-restart 'dispatch-watch@*'"
    else
        say "  systemctl --user daemon-reload && systemctl --user try-restart dispatch-watch"
    fi
    exit 0
fi
case :$PATH: in
*:"$prefix/bin":*) ;;
*)
    say "The commands are not on your PATH yet. For this shell, and in ~/.profile for all later ones:"
    say "  export PATH=\"$prefix/bin:\$PATH\""
    ;;
esac
data=${XDG_DATA_HOME:-${HOME-}/.local/share}
if [ -z "$system" ] && [ "$prefix/share" != "$data" ] && [ "$prefix" != /usr/local ] && [ "$prefix" != /usr ]; then
    say "Completions and the unit are where shells and systemd look for them only if XDG_DATA_DIRS names $prefix/share; the unit also by:"
    say "  systemctl --user link $prefix/share/systemd/user/dispatch-watch.service"
fi
if [ -e "${XDG_CONFIG_HOME:-${HOME-}/.config}/systemd/user/dispatch-watch.service" ]; then
    say "The unit in ${XDG_CONFIG_HOME:-$HOME/.config}/systemd/user goes before the one that was installed: remove it if you did not write it."
fi
say "Next, a node (README, \"Two machines\"):"
if [ -n "$system" ]; then
    say "  sudo -u $ACCOUNT dispatchctl --config $CONFIGURATION/dispatch.toml init --root DIR --node THIS --peer OTHER --group"
    say "  sudo systemctl daemon-reload && sudo systemctl enable --now dispatch-watch@THIS"
    say "Later \`sudo -u $ACCOUNT dispatchctl …\` and \`sudo -u $ACCOUNT dispatch-send …\`: they find that configuration by themselves."
else
    say "  dispatchctl init --root DIR --node THIS --peer OTHER"
    say "  dispatch-watch        # or as a service: systemctl --user daemon-reload && systemctl --user enable --now dispatch-watch"
fi
say "To take it away again: $prefix/share/dispatch/install.sh --uninstall"
