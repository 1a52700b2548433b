#!/bin/sh
# Posts what dispatch-watch tells people to a webhook that takes what Discord's take. An example for [notify] in dispatch.toml:
#
#   [notify]
#   argv = ["/usr/local/share/dispatch/notify-webhook.sh"]
#   set = { NOTIFY_WEBHOOK_FILE = "/home/ann/.config/dispatch/webhook" }
#
# The address is a secret: whoever has it can post. It is the first line of the file that NOTIFY_WEBHOOK_FILE names, else of
# ~/.config/dispatch/webhook; the file belongs to this user and nobody else may read it. The address appears in no argument
# list and in no message. https only, but for this machine itself. Needs curl, and jq or python3.
set -eu
umask 077

file=${NOTIFY_WEBHOOK_FILE:-${XDG_CONFIG_HOME:-${HOME:?neither NOTIFY_WEBHOOK_FILE nor HOME is set}/.config}/dispatch/webhook}

fail() {
    printf 'notify-webhook: %s\n' "$1" >&2
    exit 78
}

[ -f "$file" ] || fail "there is no file $file with the address"
facts=$(stat -L -c '%u %a' -- "$file")
[ "${facts% *}" = "$(id -u)" ] || fail "$file belongs to somebody else"
case ${facts#* } in
*00) ;;
*) fail "others may read $file; run: chmod 600 $file" ;;
esac

address=$(sed -n '1s/[[:space:]]*$//p' "$file")
case $address in
*[!A-Za-z0-9._~:/?%=\&+,\;-]*) fail "the first line of $file holds a character that no address needs" ;;
https://?*) ;;
http://127.0.0.1[:/]* | http://localhost[:/]*) ;;
*) fail "the first line of $file is no https:// address" ;;
esac

document=$(head -c 65536)

# The body, as ASCII on one line. Nothing that stands in the text can notify a whole channel.
body() {
    if command -v jq >/dev/null; then
        printf '%s' "$document" | jq -ac '
            if .schema != 1 then error("schema is not 1") else . end
            | {content: ([("**Dispatch on \(.node): \(.kind | gsub("_"; " "))**"), .text, .help]
                | map(select(. != null)) | join("\n") | .[0:1900]),
               allowed_mentions: {parse: []}}'
    else
        printf '%s' "$document" | python3 -c '
import json, sys
told = json.load(sys.stdin)
if told.get("schema") != 1:
    sys.exit("schema is not 1")
head = "**Dispatch on " + told["node"] + ": " + told["kind"].replace("_", " ") + "**"
content = "\n".join(part for part in (head, told["text"], told.get("help")) if part is not None)
print(json.dumps({"content": content[:1900], "allowed_mentions": {"parse": []}}))'
    fi
}

made=$(body)
quoted=$(printf '%s' "$made" | sed 's/[\\"]/\\&/g')
printf 'url = "%s"\nheader = "Content-Type: application/json"\ndata-binary = "%s"\n' "$address" "$quoted" |
    curl --disable --silent --show-error --fail --max-time 8 --proto '=https,http' --output /dev/null --config -
