-- Version 1 of a node's ledger. Times are milliseconds after 1970 UTC, money is millionths of a US dollar (whole numbers),
-- uuids and digests are their one canonical text. `sender` is the node a task came from; a task's key is (sender, id).

CREATE TABLE ledger (
  one               INTEGER PRIMARY KEY CHECK (one = 1),
  ledger            TEXT NOT NULL,
  cluster           TEXT NOT NULL,
  node              TEXT NOT NULL,
  created_at        INTEGER NOT NULL,
  whole             INTEGER NOT NULL CHECK (whole IN (0, 1)),
  accept_after      INTEGER,
  forgotten_until   INTEGER,
  chain             TEXT NOT NULL,
  chain_seq         INTEGER NOT NULL CHECK (chain_seq >= 0),
  chain_head        TEXT NOT NULL,
  recovery_chain    TEXT,
  recovery_seq      INTEGER,
  recovery_head     TEXT,
  recovery_noted_at INTEGER,
  clock_wall        INTEGER NOT NULL,
  clock_boot_ms     INTEGER NOT NULL,
  clock_host_boot   TEXT NOT NULL,
  drain_state       TEXT NOT NULL,
  drain_since       INTEGER NOT NULL,
  drain_grace_until INTEGER,
  paid_off_until    INTEGER
) STRICT;

CREATE TABLE counters (
  name  TEXT PRIMARY KEY,
  value INTEGER NOT NULL CHECK (value >= 0)
) STRICT, WITHOUT ROWID;

-- Starts of this node's watcher. `dev` and `ino` are those of watch.lock, as decimal text: they use all 64 bits.
CREATE TABLE boots (
  instance  TEXT PRIMARY KEY,
  boot      INTEGER NOT NULL,
  host_boot TEXT NOT NULL,
  dev       TEXT NOT NULL,
  ino       TEXT NOT NULL,
  noted_at  INTEGER NOT NULL,
  held_at   INTEGER
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX boots_held ON boots (boot) WHERE held_at IS NOT NULL;
CREATE INDEX boots_noted ON boots (boot);

-- `until` NULL: kept for ever (tasks of version-2 peers).
CREATE TABLE seen (
  sender TEXT NOT NULL,
  id     TEXT NOT NULL,
  digest TEXT NOT NULL,
  until  INTEGER,
  PRIMARY KEY (sender, id)
) STRICT, WITHOUT ROWID;
CREATE INDEX seen_until ON seen (until) WHERE until IS NOT NULL;

CREATE TABLE streams (
  sender  TEXT NOT NULL,
  stream  TEXT NOT NULL,
  highest INTEGER NOT NULL CHECK (highest >= 1),
  PRIMARY KEY (sender, stream)
) STRICT, WITHOUT ROWID;

CREATE TABLE positions (
  sender TEXT NOT NULL,
  stream TEXT NOT NULL,
  seq    INTEGER NOT NULL CHECK (seq >= 1),
  digest TEXT NOT NULL,
  at     INTEGER NOT NULL,
  PRIMARY KEY (sender, stream, seq)
) STRICT, WITHOUT ROWID;
CREATE INDEX positions_at ON positions (at);

-- Positions first..last of a stream that never came. Accepted ones stay, so that a late one is still known for what it is.
CREATE TABLE gaps (
  sender      TEXT NOT NULL,
  stream      TEXT NOT NULL,
  first       INTEGER NOT NULL CHECK (first >= 1),
  last        INTEGER NOT NULL,
  noted_at    INTEGER NOT NULL,
  reported_at INTEGER,
  accepted_at INTEGER,
  PRIMARY KEY (sender, stream, first),
  CHECK (last >= first)
) STRICT, WITHOUT ROWID;

CREATE TABLE tasks (
  n                  INTEGER PRIMARY KEY AUTOINCREMENT,
  sender             TEXT NOT NULL,
  id                 TEXT NOT NULL,
  digest             TEXT NOT NULL,
  state              TEXT NOT NULL,
  status             TEXT,
  code               TEXT,
  priority           TEXT NOT NULL,
  accepted_at        INTEGER NOT NULL,
  created            INTEGER NOT NULL,
  expires            INTEGER NOT NULL,
  run                TEXT,
  root               TEXT NOT NULL,
  parent             TEXT,
  depth              INTEGER NOT NULL,
  profile            TEXT NOT NULL,
  workspace          TEXT,
  terms_sha256       TEXT,
  gates              TEXT NOT NULL,
  estimate           INTEGER CHECK (estimate >= 0),
  ceiling            INTEGER CHECK (ceiling >= 0),
  billing            TEXT NOT NULL,
  required_approvals INTEGER NOT NULL,
  max_attempts       INTEGER NOT NULL,
  attempts_started   INTEGER NOT NULL DEFAULT 0,
  launch_failures    INTEGER NOT NULL DEFAULT 0,
  not_before         INTEGER,
  stop_why           TEXT,
  stop_by            TEXT,
  stop_at            INTEGER,
  wait_reason        TEXT,
  reservation        TEXT,
  open_epoch         INTEGER,
  queued_at          INTEGER,
  final_at           INTEGER,
  filed              INTEGER NOT NULL DEFAULT 0 CHECK (filed IN (0, 1)),
  published_at       INTEGER,
  first_line         TEXT NOT NULL,
  labels             TEXT NOT NULL,
  UNIQUE (sender, id)
) STRICT;
CREATE INDEX tasks_open ON tasks (state, n) WHERE final_at IS NULL;
CREATE INDEX tasks_unfiled ON tasks (n) WHERE filed = 0 AND final_at IS NULL;
CREATE INDEX tasks_unpublished ON tasks (n) WHERE final_at IS NOT NULL AND published_at IS NULL;
CREATE INDEX tasks_count ON tasks (sender, state);
CREATE INDEX tasks_id ON tasks (id);

-- The long bytes of a task, apart from its row, so that a change of state rewrites none of them.
CREATE TABLE papers (
  task  INTEGER NOT NULL REFERENCES tasks (n),
  kind  TEXT NOT NULL CHECK (kind IN ('envelope', 'recipe', 'terms', 'result')),
  bytes BLOB NOT NULL,
  PRIMARY KEY (task, kind)
) STRICT;

CREATE TABLE decisions (
  n              INTEGER PRIMARY KEY AUTOINCREMENT,
  task           INTEGER NOT NULL REFERENCES tasks (n),
  author         TEXT NOT NULL,
  key16          TEXT NOT NULL,
  outcome        TEXT NOT NULL CHECK (outcome IN ('approved', 'rejected')),
  reason         TEXT NOT NULL,
  decided_at     INTEGER NOT NULL,
  expires        INTEGER NOT NULL,
  terms_sha256   TEXT NOT NULL,
  max_cost       INTEGER CHECK (max_cost >= 0),
  payload        BLOB NOT NULL,
  payload_sha256 TEXT NOT NULL,
  recorded_at    INTEGER NOT NULL,
  consumed_at    INTEGER,
  UNIQUE (task, payload_sha256)
) STRICT;

-- Sealed requests of senders (cancel). They may come before their task and are kept until they expire.
CREATE TABLE controls (
  sender      TEXT NOT NULL,
  id          TEXT NOT NULL,
  verb        TEXT NOT NULL,
  task_sha256 TEXT NOT NULL,
  reason      TEXT NOT NULL,
  expires     INTEGER NOT NULL,
  recorded_at INTEGER NOT NULL,
  applied_at  INTEGER,
  PRIMARY KEY (sender, id, verb)
) STRICT, WITHOUT ROWID;

CREATE TABLE attempts (
  epoch       INTEGER PRIMARY KEY,
  task        INTEGER NOT NULL REFERENCES tasks (n),
  n           INTEGER NOT NULL CHECK (n >= 1),
  state       TEXT NOT NULL CHECK (state IN ('leased', 'started', 'ended', 'revoked')),
  mark        TEXT NOT NULL,
  reservation TEXT REFERENCES reservations (id),
  order_json  TEXT,
  leased_at   INTEGER NOT NULL,
  started_at  INTEGER,
  ended_at    INTEGER,
  pid         INTEGER,
  pid_start   INTEGER,
  status      TEXT,
  cost        INTEGER CHECK (cost >= 0),
  basis       TEXT,
  outcome     TEXT
) STRICT;
CREATE UNIQUE INDEX attempts_open ON attempts (task) WHERE state IN ('leased', 'started');
CREATE INDEX attempts_task ON attempts (task, epoch);

CREATE TABLE windows (
  key        TEXT PRIMARY KEY,
  reserved   INTEGER NOT NULL CHECK (reserved >= 0),
  spent      INTEGER NOT NULL CHECK (spent >= 0),
  opened_at  INTEGER NOT NULL,
  closed_at  INTEGER,
  closed_why TEXT
) STRICT, WITHOUT ROWID;

CREATE TABLE reservations (
  id        TEXT PRIMARY KEY,
  sender    TEXT NOT NULL,
  task      TEXT NOT NULL,
  nth       INTEGER NOT NULL CHECK (nth >= 1),
  amount    INTEGER NOT NULL CHECK (amount >= 0),
  made_at   INTEGER NOT NULL,
  closed_at INTEGER,
  closing   TEXT CHECK (closing IN ('settled', 'released')),
  actual    INTEGER CHECK (actual >= 0),
  basis     TEXT
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX reservations_open ON reservations (sender, task, nth) WHERE closed_at IS NULL;

CREATE TABLE reservation_windows (
  reservation TEXT NOT NULL REFERENCES reservations (id),
  key         TEXT NOT NULL REFERENCES windows (key),
  PRIMARY KEY (reservation, key)
) STRICT, WITHOUT ROWID;

-- Double entry: each row moves an amount from one account of a window to another, so it balances by itself.
-- `free` is what is neither set aside nor charged.
CREATE TABLE postings (
  n           INTEGER PRIMARY KEY AUTOINCREMENT,
  at          INTEGER NOT NULL,
  key         TEXT NOT NULL REFERENCES windows (key),
  source      TEXT NOT NULL CHECK (source IN ('free', 'reserved')),
  target      TEXT NOT NULL CHECK (target IN ('free', 'reserved', 'spent')),
  amount      INTEGER NOT NULL CHECK (amount >= 0),
  reservation TEXT REFERENCES reservations (id),
  why         TEXT NOT NULL CHECK (why IN ('reserve', 'settle', 'release', 'carry')),
  basis       TEXT,
  CHECK (source <> target)
) STRICT;
CREATE INDEX postings_key ON postings (key, at);

CREATE TABLE peers (
  node       TEXT PRIMARY KEY,
  boot       INTEGER NOT NULL,
  seq        INTEGER NOT NULL,
  advanced_at INTEGER NOT NULL,
  payload    BLOB NOT NULL
) STRICT, WITHOUT ROWID;

-- Heads of other nodes' audit chains as they were shown to this node.
CREATE TABLE witnessed (
  node  TEXT NOT NULL,
  chain TEXT NOT NULL,
  seq   INTEGER NOT NULL,
  head  TEXT NOT NULL,
  at    INTEGER NOT NULL,
  PRIMARY KEY (node, chain, seq)
) STRICT, WITHOUT ROWID;

-- What peers last said they had seen of this node.
CREATE TABLE echoes (
  peer      TEXT PRIMARY KEY,
  boot      INTEGER NOT NULL,
  seq       INTEGER NOT NULL,
  chain     TEXT NOT NULL,
  chain_seq INTEGER NOT NULL,
  head      TEXT NOT NULL,
  at        INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE audit (
  n      INTEGER PRIMARY KEY AUTOINCREMENT,
  chain  TEXT NOT NULL,
  seq    INTEGER NOT NULL CHECK (seq >= 1),
  hash   TEXT NOT NULL,
  sender TEXT,
  task   TEXT,
  line   TEXT NOT NULL,
  UNIQUE (chain, seq)
) STRICT;
CREATE INDEX audit_task ON audit (task, sender) WHERE task IS NOT NULL;

CREATE TABLE outbox (
  n            INTEGER PRIMARY KEY AUTOINCREMENT,
  kind         TEXT NOT NULL,
  name         TEXT NOT NULL,
  payload      BLOB NOT NULL,
  made_at      INTEGER NOT NULL,
  published_at INTEGER,
  UNIQUE (kind, name)
) STRICT;
CREATE INDEX outbox_waiting ON outbox (n) WHERE published_at IS NULL;

CREATE TABLE requests (
  id         TEXT PRIMARY KEY,
  verb       TEXT NOT NULL,
  reply      TEXT NOT NULL,
  applied_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE trips (
  n          INTEGER PRIMARY KEY AUTOINCREMENT,
  scope      TEXT NOT NULL,
  mode       TEXT NOT NULL CHECK (mode IN ('halt', 'kill')),
  reason     TEXT NOT NULL,
  at         INTEGER NOT NULL,
  resumed_at INTEGER,
  resumed_by TEXT
) STRICT;
CREATE UNIQUE INDEX trips_open ON trips (scope) WHERE resumed_at IS NULL;
