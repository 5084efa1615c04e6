-- auth.db: the credentials of one account and who used them.

CREATE TABLE password(
  one        INTEGER NOT NULL PRIMARY KEY CHECK (one = 1),
  generation INTEGER NOT NULL,               -- raised by each change
  sealed     BLOB NOT NULL,
  changed_ns INTEGER NOT NULL
) STRICT;

CREATE TABLE account(
  one        INTEGER NOT NULL PRIMARY KEY CHECK (one = 1),
  generation INTEGER NOT NULL                -- raised when the account is disabled
) STRICT;
INSERT INTO account VALUES (1, 1);

CREATE TABLE login(
  key       BLOB NOT NULL PRIMARY KEY,
  first_ns  INTEGER NOT NULL,
  last_ns   INTEGER NOT NULL,
  count     INTEGER NOT NULL,
  ok        INTEGER NOT NULL,
  ip        TEXT NOT NULL,
  protocol  TEXT NOT NULL,
  mechanism TEXT NOT NULL,
  login     TEXT NOT NULL,
  result    TEXT NOT NULL,
  tls       TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX login_last ON login(last_ns);
