-- What was submitted a short while ago, by what it said: a client that did not hear the answer
-- repeats it, and is told the first one's id.
CREATE TABLE submission_repeat(
  digest BLOB PRIMARY KEY,
  submission_id BLOB NOT NULL,
  expires INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX submission_repeat_expires ON submission_repeat(expires);
