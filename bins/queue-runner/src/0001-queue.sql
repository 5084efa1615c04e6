-- One row a message: what was submitted in one transaction, or a report of ours.
CREATE TABLE message(
    submission     BLOB PRIMARY KEY CHECK (length(submission) = 16),
    account        TEXT NOT NULL,
    from_path      TEXT NOT NULL,
    size           INTEGER NOT NULL,
    header_length  INTEGER NOT NULL,
    smtputf8       INTEGER NOT NULL,
    eight_bit      INTEGER NOT NULL,
    require_tls    INTEGER NOT NULL,
    queued         INTEGER NOT NULL,
    message_id     TEXT NOT NULL,
    subject        TEXT NOT NULL,
    origin         INTEGER NOT NULL       -- 0 a user, 1 a report of ours
) STRICT, WITHOUT ROWID;

-- One row a recipient that is still to be reached.
CREATE TABLE recipient(
    id             INTEGER PRIMARY KEY AUTOINCREMENT,
    queue_id       BLOB NOT NULL UNIQUE CHECK (length(queue_id) = 10),
    submission     BLOB NOT NULL REFERENCES message(submission),
    address        TEXT NOT NULL,
    domain         TEXT NOT NULL,
    attempts       INTEGER NOT NULL DEFAULT 0,
    last_attempt   INTEGER,
    next_attempt   INTEGER NOT NULL,
    last_error     TEXT NOT NULL DEFAULT '',
    hold           INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX recipient_due ON recipient(next_attempt);
CREATE INDEX recipient_submission ON recipient(submission);

-- Submissions that were taken, kept after they left the queue: the answer to done() may be lost,
-- and a submission offered again must not be sent again.
CREATE TABLE taken(
    submission     BLOB PRIMARY KEY,
    until          INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX taken_until ON taken(until);
