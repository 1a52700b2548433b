//! What man pages say beyond the description of the command line: files, variables, and what `--json` prints.

/// A name and what it is.
pub(super) type Entry = (&'static str, &'static str);

const CONFIGURATION: [Entry; 2] = [
    (
        "~/.config/dispatch/dispatch.toml",
        "The configuration; else /etc/dispatch/dispatch.toml. Every key has its comment in the file that dispatchctl init writes.",
    ),
    (
        "~/.config/dispatch/keys/PEER.key",
        "The key that this node shares with a peer, mode 0600. It never belongs on the share.",
    ),
];

const APPROVERS: Entry = (
    "~/.config/dispatch/approvers",
    "Who may decide on tasks that wait here: an OpenSSH allowed_signers file. dispatchctl approvers adds to it and removes from it.",
);

const STATE: Entry = (
    "~/.local/state/dispatch/NODE/",
    "The state directory, on a disk of this machine: ledger.db (tasks, money, audit), jobs/ (a directory for each attempt), \
     send/ (what was sent from here), requests/ and replies/ (the door to the watcher), KILLSWITCH (stops this node alone).",
);

const SHARE: [Entry; 2] = [
    (
        "ROOT/FROM-to-TO/",
        "A lane of the share: inbox, pending-ack, processing, done, rejected, control. Its files are sealed; whoever mounts \
         the share can read them.",
    ),
    (
        "ROOT/KILLSWITCH",
        "While it is there, in whatever form, no node starts anything. ROOT/FROM-to-TO/KILLSWITCH stops one lane.",
    ),
];

/// The files that matter to a page.
pub(super) fn files(page: &str) -> Vec<Entry> {
    let mut list = match page {
        "dispatchctl-kill" | "dispatchctl-resume" => return vec![SHARE[1], STATE],
        "dispatchctl-init" | "dispatchctl-config-check" => CONFIGURATION.to_vec(),
        "dispatchctl-keys" | "dispatchctl-keys-rotate" => return CONFIGURATION.to_vec(),
        "dispatchctl-approvers" => return vec![APPROVERS],
        // The command's own page tells them once for all its verbs.
        _ if page.starts_with("dispatchctl-") => return Vec::new(),
        "dispatch-exec" => {
            return vec![
                (
                    "order.json",
                    "What the watcher ordered: program, arguments, environment by name, directory, limits.",
                ),
                ("stdin", "The request, as the agent gets it on its standard input."),
                ("started.json", "Synced before the agent starts."),
                ("log", "What the agent printed, up to the order's cap."),
                ("stop.json", "Written by the watcher: end the agent, and why."),
                ("outcome.json", "What happened; the last thing that is written."),
                ("work/", "The agent's directory, where the task names no workspace."),
                (
                    "door/",
                    "Where the agent asks the watcher for tasks of its own (requests, replies), and finds what came of them \
                     (results); closed when the attempt ends.",
                ),
            ];
        }
        _ => CONFIGURATION.to_vec(),
    };
    if page == "dispatch-ack" || page == "dispatchctl-init" {
        list.push(APPROVERS);
    }
    if page == "dispatchctl-init" {
        list.push((
            "~/.config/dispatch/join-PEER.json",
            "What the other node needs, the pair key among it: bring it over, then remove it on both sides.",
        ));
    }
    list.push(STATE);
    list.extend(SHARE);
    list
}

const FIND_CONFIGURATION: [Entry; 3] = [
    ("DISPATCH_CONFIG", "The configuration file, where --config names none."),
    ("XDG_CONFIG_HOME", "Where dispatch/dispatch.toml is looked for; else ~/.config."),
    (
        "XDG_STATE_HOME, STATE_DIRECTORY",
        "Where the state directory is when the configuration names none; else ~/.local/state. STATE_DIRECTORY is set by \
         systemd and names it directly.",
    ),
];

const WORDS: [Entry; 2] = [
    ("NO_COLOR", "Set to anything: no colour."),
    ("DISPATCH_LOG", "A filter for developers' words on standard error, like dispatch_spool=trace."),
];

const VERSION_2: Entry = (
    "DISPATCH_ROOT, DISPATCH_NODE_A, DISPATCH_NODE_B, DISPATCH_FROM, DISPATCH_SIDE, DISPATCH_POLL_SEC, DISPATCH_MAX_PARALLEL, \
     DISPATCH_AGENT_BIN",
    "Override the configuration with the meaning that version 2 gave them; dispatchctl config check shows where they do.",
);

/// The variables that matter to a page.
pub(super) fn environment(page: &str) -> Vec<Entry> {
    match page {
        _ if page.starts_with("dispatchctl-") && page != "dispatchctl-init" => Vec::new(),
        "dispatch-exec" => vec![
            (
                "PATH, HOME, USER, LANG, TMPDIR",
                "Handed on to the agent, and whatever the order names; nothing else is.",
            ),
            (
                "DISPATCH_TASK, DISPATCH_SENDER, DISPATCH_NODE, DISPATCH_ATTEMPT, DISPATCH_EPOCH",
                "Set for the agent: the task's id, who sent it, this node, which attempt this is.",
            ),
            (
                "DISPATCH_DOOR, DISPATCH_TOKEN",
                "Set for the agent: where dispatch-send asks for tasks, and what it shows there. The token is there only where the \
                 task may send some (its fan-out), and dead when the attempt ends; it never goes to the client of an engine \
                 elsewhere.",
            ),
            (
                "DISPATCH_MARK",
                "Set for the agent: by it the processes that it leaves behind are found and ended.",
            ),
        ],
        _ => {
            let mut list = FIND_CONFIGURATION.to_vec();
            if page == "dispatch-watch" {
                list.push((
                    "NOTIFY_SOCKET, WATCHDOG_USEC",
                    "Set by systemd: the watcher tells it when it is ready, and that it is alive.",
                ));
            }
            if page == "dispatch-send" {
                list.push((
                    "DISPATCH_DOOR, DISPATCH_TOKEN",
                    "Set by dispatch-exec for the agent of a task: the task is then sent as a child of that one, by the watcher, and no \
                     configuration is read. Outside a task, unset them.",
                ));
            }
            if page == "dispatch-ack" {
                list.push(("SSH_AUTH_SOCK", "An agent that holds the key, where --key names a .pub file."));
            }
            list.push(VERSION_2);
            list.extend(WORDS);
            list
        }
    }
}

/// What `--json` prints, for the pages of commands that have it. Members stay; new ones may be added.
pub(super) fn json(page: &str) -> Option<&'static str> {
    Some(match page {
        "dispatch-ack" => ACK,
        "dispatchctl" => CTL,
        "dispatchctl-init" => INIT,
        "dispatchctl-status" => STATUS,
        "dispatchctl-list" => LIST,
        "dispatchctl-show" => SHOW,
        "dispatchctl-explain" => EXPLAIN,
        "dispatchctl-cancel" | "dispatchctl-drain" | "dispatchctl-undrain" => {
            "One document with the member ok: what the watcher, or the other node, was asked and answered."
        }
        "dispatchctl-retry" => RETRY,
        "dispatchctl-doctor" => {
            "One document: ok, warnings and failed (how many), lines; each line has check, verdict (ok, warning, failed), text and \
             mend."
        }
        "dispatchctl-budget" => BUDGET,
        "dispatchctl-budget-log" => {
            "One line for each posting: at, window, why, source, target, usd, basis, reservation, from, task."
        }
        "dispatchctl-budget-close-run" | "dispatchctl-budget-resume" => {
            "One document with the member ok: what was done."
        }
        "dispatchctl-resend" => {
            "One document with the members ok, task and inbox (the path to which the bytes went)."
        }
        "dispatchctl-kill" => KILL,
        "dispatchctl-resume" => {
            "One document with the members ok (what was done) and still_stopped (nodes on which resume must still run)."
        }
        "dispatchctl-verify" => VERIFY,
        "dispatchctl-audit-show" => {
            "One line for each entry, with the members source (whose chain it was read from) and line (the entry: chain, seq, \
             ts, node, boot, kind, and from, task, epoch, code, who where it has them, data, prev, hash)."
        }
        "dispatchctl-audit-verify" => {
            "One document with the members entries, chain, seq, head, witnessed (heads that peers repeated) and notes."
        }
        "dispatchctl-config-check" => {
            "One document with the members file and values: a list of key, value (as TOML) and origin (the line of the file, \
             the variable, or default)."
        }
        "dispatchctl-policy-eval" => {
            "Always: one line for each line read, with the member result, or error with a code and a text."
        }
        "dispatchctl-completions" | "dispatchctl-man" => {
            "Where files are written: one document with the member written, a list of paths."
        }
        _ => return of_trust(page),
    })
}

/// The same of the verbs that say whom this node believes.
fn of_trust(page: &str) -> Option<&'static str> {
    Some(match page {
        "dispatchctl-keys-list" => {
            "One document with the members schema, node and peers. Each peer has peer, heartbeat (whether one of it was read) \
             and keys: a list of keyid, role (signs, verifies, retired), file, mode, peer (what the peer's last heartbeat shows \
             of it: signs, verifies, not shown, unknown) and problem (what is wrong with the file, or null)."
        }
        "dispatchctl-keys-new" | "dispatchctl-keys-rotate" | "dispatchctl-keys-retire" => {
            "One document with the members schema, did (drew, added, made first, retired, nothing), peer and keyid; where they \
             apply also file, join (the join file for the peer), old (the key that signed before) and watcher (told, none, \
             failed: whether a running one reads the configuration again)."
        }
        "dispatchctl-approvers-list" => {
            "One document with the members schema, file, required (how many must say yes), approvers (line, principals, \
             key_type, fingerprint, key16, state: valid, not yet or over, valid_after, valid_before) and spoiled (line, problem)."
        }
        "dispatchctl-approvers-add" => {
            "One document with the members schema, did, principals, fingerprint and watcher (told, none, failed)."
        }
        "dispatchctl-approvers-remove" => {
            "One document with the members schema, did, removed (a list of principals and fingerprint) and watcher (told, none, \
             failed)."
        }
        _ => return None,
    })
}

const CTL: &str = "\
Every verb takes --json; its page names the members. Members stay, and new ones may be added: programs should ignore what \
they do not know. Times are UTC (2026-01-31T12:00:00.000Z), money is a text of US dollars (\"2.50\"), null means unknown or \
none.

A failure is one line on standard error:

  {\"error\": {\"code\": 66, \"what\": \"…\", \"task\": null, \"why\": [], \"help\": \"…\"}}

Its code is the exit status.";

const ACK: &str = "\
Without ID: one document with the members schema, waiting and unverified. Each entry of waiting has id, short, from, to, \
created, expires, age_ms, profile, agent, permission_mode, workspace, workspace_path, backend, estimate_usd, ceiling_usd, gate \
(why a person is asked), require_dangerous, request_first_line, request_bytes, task_sha256, terms_sha256, made and decisions; \
unverified names files that lie there and are not believed.

With ID and --yes: schema, id, from, to, outcome, author, key, reason, decided_at, expires, max_cost_usd and taken (whether \
the watcher has taken the decision).";

const INIT: &str = "\
One document with the members node, cluster, root, config, state, join (the join file for the peer, or null) and new_ledger \
(what was carried over, or null).";

const STATUS: &str = "\
One document: node, cluster, config, state_dir, version, at; watcher (running, boot); share (root, reachable, problem, \
file_system); killswitch (present, tripped, trips); sending (kept, open, unanswered); ledger, audit; clock (suspect, and \
agreed_at: when it agreed last); state (active, entering_maintenance, maintenance, drain_failed, …), state_since and \
still_running (from, id: what runs after a drain ran out of its grace); peers (node, health, age_ms, version, state, queued, \
waiting, running, capacity, backpressure, \
killswitch); tasks (how many in each state); running, waiting, last (tasks); budget (month, day, run_cap, paid_off_until). \
What only the ledger knows is missing where this state directory has none.";

const LIST: &str = "\
One line for each task, newest first. direction is received or sent.

Received: id, from, state, status, code, priority, profile, workspace, run, root, depth, task_sha256, terms_sha256, gates, \
ceiling_usd, estimate_usd, billing, required_approvals, attempts_started, max_attempts, created, accepted_at, queued_at, \
not_before, expires, final_at, published_at, wait_reason, stop, labels.

Sent: id, from, to, standing, status, answered_at, unanswered_at, cancel_asked, conflict, stream, seq, task_sha256, \
published_at, expires, answer_by, profile.";

const SHOW: &str = "\
One document: the members of dispatchctl-list(1), and what belongs to the task: the task itself, its terms, decisions, \
attempts, children (tasks that it was sent on as, or that its agent sent: id, to, kind (forwarded or sent), epoch, fanout_left, \
budget_usd, made_at, kept_at, answer_by, ended_at, status), the result and its audit entries.";

const EXPLAIN: &str = "\
One document: task, direction, state, status, code; who (can do something: sender, operator, approver, nobody), what, why and \
next, as the sentences say; also (what else holds it); limit (window, cap_usd, left_usd, asked_usd, resets_at), or null; cost; \
windows.";

const RETRY: &str = "\
One document, as dispatch-send(1) prints it, with the member retry_of: the task that this one repeats.";

const BUDGET: &str = "\
One document: schema, node, at, off_by (caps of 0: paid work is off), paid_off_until; action (allow, throttle or block), since and alert (why, with the \
figures as they are now); windows (key, kind, name, reserved_usd, spent_usd, committed_usd, cap_usd, left_usd, resets_at, opened_at, closed_at, \
closed_why), reservations (id, from, task, attempt, usd, made_at), holds (sender, tree, trip, since, why, next), \
standing (id, author, uses, total_usd, last_at) and breakers \
(profile, backend, is_open, failures, cause, open_until).";

const KILL: &str = "\
One document: tripped (the file that was written), mode (halt or kill), seen (nodes that show it), not_seen, no_watcher.";

const VERIFY: &str = "\
One line for each file: file, what, keyids, verified, code and text (why not; null where it verifies).";
