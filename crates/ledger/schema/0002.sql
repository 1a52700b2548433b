-- What people are told by the program of `[notify]`: each thing once. A row is made in the transaction that makes it true,
-- taken before the program is started, and ended with what became of it.
CREATE TABLE tellings (
  n        INTEGER PRIMARY KEY AUTOINCREMENT,
  kind     TEXT NOT NULL,
  name     TEXT NOT NULL,
  document TEXT NOT NULL,
  made_at  INTEGER NOT NULL,
  taken_at INTEGER,
  ended_at INTEGER,
  UNIQUE (kind, name)
) STRICT;
CREATE INDEX tellings_open ON tellings (n) WHERE ended_at IS NULL;

-- Outcomes are counted for the metrics, and a walk over all tasks would grow with their number and their width.
CREATE INDEX tasks_outcomes ON tasks (status, code) WHERE final_at IS NOT NULL;
