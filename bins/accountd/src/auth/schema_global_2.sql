-- Failed log-ins of the last minute by network, as `failed` has them of the last day.
CREATE TABLE failed_minute(
  network BLOB NOT NULL PRIMARY KEY,
  began_ns INTEGER NOT NULL,
  count INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
