-- What else is known of the connection of a log-in. A table of its own: programs one
-- step older, which may come back, write rows of `login` without naming its columns.
CREATE TABLE login_from(
  key        BLOB NOT NULL PRIMARY KEY REFERENCES login(key) ON DELETE CASCADE,
  local_ip   TEXT NOT NULL,                  -- the address of ours it came to
  listener   TEXT NOT NULL,                  -- LISTENER or LISTENER/KIND of mox.toml
  client_key BLOB NOT NULL,                  -- of EXTERNAL: SHA-256 of the SPKI, else empty
  agent      TEXT NOT NULL                   -- what the client called itself before it logged in
) STRICT, WITHOUT ROWID;
