#!/bin/sh
# Shows on the desktop what dispatch-watch tells people. An example for [notify] in dispatch.toml:
#
#   [notify]
#   argv = ["/usr/local/share/dispatch/notify-desktop.sh"]
#
# Reads one JSON document on standard input (schema 1) and calls notify-send. Needs notify-send, and jq or python3. The watcher
# must run in the desktop session of the person who is to be told: as a user unit, it does.
set -eu
umask 077

document=$(head -c 65536)

# One line for each part: the title, the urgency, the text. Whatever is in the document stays a value: nothing of it is
# ever part of a program here.
parts() {
    if command -v jq >/dev/null; then
        printf '%s' "$document" | jq -r '
            def line: tostring | gsub("[\\x00-\\x1f\\x7f]"; " ");
            def markup: gsub("&"; "&amp;") | gsub("<"; "&lt;") | gsub(">"; "&gt;");
            if .schema != 1 then error("schema is not 1") else . end
            | "Dispatch on \(.node | line): \(.kind | line | gsub("_"; " "))",
              (if .kind == "tripped" or .kind == "peer_dead" then "critical" else "normal" end),
              ([.text, .help] | map(select(. != null) | line | markup) | join(" — "))'
    else
        printf '%s' "$document" | python3 -c '
import html, json, re, sys
told = json.load(sys.stdin)
if told.get("schema") != 1:
    sys.exit("schema is not 1")
line = lambda value: re.sub(r"[\x00-\x1f\x7f]", " ", str(value))
print("Dispatch on " + line(told["node"]) + ": " + line(told["kind"]).replace("_", " "))
print("critical" if told["kind"] in ("tripped", "peer_dead") else "normal")
texts = [told["text"], told.get("help")]
print(" \u2014 ".join(html.escape(line(text), quote=False) for text in texts if text is not None))'
    fi
}

shown=$(parts)
title=$(printf '%s\n' "$shown" | sed -n 1p)
urgency=$(printf '%s\n' "$shown" | sed -n 2p)
text=$(printf '%s\n' "$shown" | sed -n 3p)
exec notify-send --app-name=Dispatch --urgency="$urgency" -- "$title" "$text"
