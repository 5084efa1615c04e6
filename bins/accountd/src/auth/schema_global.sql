-- accountd.db: the little that belongs to no one account.

CREATE TABLE client_key(
  fingerprint BLOB NOT NULL PRIMARY KEY,     -- SHA-256 of the SPKI
  account     BLOB NOT NULL,
  generation  INTEGER NOT NULL,              -- another one each time a key is added
  label       TEXT NOT NULL,
  login       TEXT NOT NULL,                 -- the address it logs in as
  created_ns  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX client_key_account ON client_key(account);

-- Failed log-ins of the last day by network (auth/limiter.rs).
CREATE TABLE failed(
  network BLOB NOT NULL PRIMARY KEY,
  began_ns INTEGER NOT NULL,
  count INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Sealed verifiers that belong to no account: 'decoy' answers for unknown names, 'admin' is the
-- administrators' password.
CREATE TABLE verifier(
  name TEXT NOT NULL PRIMARY KEY,
  generation INTEGER NOT NULL,
  sealed BLOB NOT NULL
) STRICT, WITHOUT ROWID;

-- Log-ins of unknown names, and of the administrator.
CREATE TABLE login(
  key       BLOB NOT NULL PRIMARY KEY,       -- hash of all that makes two attempts the same
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

-- Folders whose account left domains.toml, and when.
CREATE TABLE detached(
  account BLOB NOT NULL PRIMARY KEY,
  since_ns INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
