-- What stands between a task and its start beside its money (policy section 2): breakers, holds, the spending review.

CREATE TABLE breakers (
  profile    TEXT NOT NULL,
  backend    TEXT NOT NULL,
  failures   INTEGER NOT NULL CHECK (failures >= 0),
  cause      TEXT,
  open_until INTEGER,
  changed_at INTEGER NOT NULL,
  PRIMARY KEY (profile, backend),
  CHECK ((cause IS NULL) = (open_until IS NULL))
) STRICT, WITHOUT ROWID;

-- Senders whose paid work waits for a person. `root` NULL: for its own speed; else also that tree's free tasks wait.
CREATE TABLE holds (
  n          INTEGER PRIMARY KEY AUTOINCREMENT,
  sender     TEXT NOT NULL,
  root       TEXT,
  trip       TEXT NOT NULL,
  at         INTEGER NOT NULL,
  resumed_at INTEGER,
  resumed_by TEXT
) STRICT;
CREATE UNIQUE INDEX holds_open ON holds (sender, trip, ifnull(root, '')) WHERE resumed_at IS NULL;
CREATE INDEX holds_resumed ON holds (sender, resumed_at) WHERE resumed_at IS NOT NULL;

-- Paid requests of the last day by what they ask for: the digest of request, profile and workspace.
CREATE TABLE requests_paid (
  n       INTEGER PRIMARY KEY AUTOINCREMENT,
  sender  TEXT NOT NULL,
  content TEXT NOT NULL,
  at      INTEGER NOT NULL
) STRICT;
CREATE INDEX requests_paid_same ON requests_paid (sender, content, at);
CREATE INDEX requests_paid_at ON requests_paid (at);

CREATE INDEX tasks_tree ON tasks (root, accepted_at);

-- What the spending review last came to: one row, and none before the first review.
CREATE TABLE spend_review (
  one    INTEGER PRIMARY KEY CHECK (one = 1),
  action TEXT NOT NULL CHECK (action IN ('block', 'throttle', 'allow')),
  alert  TEXT NOT NULL,
  at     INTEGER NOT NULL
) STRICT;

-- Standing approvals as they were used. `total` in millionths of a US dollar.
CREATE TABLE standings (
  id         TEXT PRIMARY KEY,
  author     TEXT NOT NULL,
  uses       INTEGER NOT NULL CHECK (uses >= 0),
  total      INTEGER NOT NULL CHECK (total >= 0),
  last_at    INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Which standing approvals answered for which task.
CREATE TABLE standing_answers (
  task     INTEGER NOT NULL REFERENCES tasks (n),
  standing TEXT NOT NULL REFERENCES standings (id),
  at       INTEGER NOT NULL,
  PRIMARY KEY (task, standing)
) STRICT, WITHOUT ROWID;
