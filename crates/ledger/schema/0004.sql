-- Tasks that this node sends for tasks it runs: those it forwards, and those an agent asks for (policy sections 4 and 5).

-- The digest of the token that an attempt's agent may send tasks with, and the child that stands in an executor's place.
ALTER TABLE attempts ADD COLUMN token_sha256 TEXT;
ALTER TABLE attempts ADD COLUMN child TEXT;
CREATE UNIQUE INDEX attempts_token ON attempts (token_sha256) WHERE token_sha256 IS NOT NULL;

-- A child is a row before it is sealed: its payload has everything but its place in a stream, which it gets when it is
-- kept in the sender's outbox. `reservation` is that of a child an agent asked for; a forwarded one spends its attempt's.
CREATE TABLE children (
  n           INTEGER PRIMARY KEY AUTOINCREMENT,
  id          TEXT NOT NULL UNIQUE,
  receiver    TEXT NOT NULL,
  kind        TEXT NOT NULL CHECK (kind IN ('forwarded', 'sent')),
  epoch       INTEGER NOT NULL REFERENCES attempts (epoch),
  parent      TEXT NOT NULL,
  fanout      INTEGER NOT NULL CHECK (fanout >= 0),
  budget      INTEGER CHECK (budget >= 0),
  reservation TEXT REFERENCES reservations (id),
  payload     BLOB NOT NULL,
  answer_by   INTEGER NOT NULL,
  made_at     INTEGER NOT NULL,
  kept_at     INTEGER,
  task_sha256 TEXT,
  ended_at    INTEGER,
  status      TEXT,
  result      BLOB,
  CHECK ((kept_at IS NULL) = (task_sha256 IS NULL))
) STRICT;
CREATE INDEX children_open ON children (n) WHERE ended_at IS NULL;
CREATE INDEX children_parent ON children (parent);
CREATE INDEX children_epoch ON children (epoch);

CREATE INDEX tasks_parent ON tasks (parent) WHERE parent IS NOT NULL;
CREATE INDEX reservations_task ON reservations (task);
