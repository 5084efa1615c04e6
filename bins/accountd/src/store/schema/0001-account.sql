-- The database of one account. Times are nanoseconds since 1970 in UTC unless a name says seconds.
-- A rule for new columns: what is wide, or has a scattered index, belongs to the content (written
-- once at delivery), never to the message (written by COPY, MOVE and EXPUNGE). Numbers of messages
-- and contents come from `meta`, which every transaction writes anyway.

CREATE TABLE meta(
  one INTEGER PRIMARY KEY CHECK (one = 1),
  modseq INTEGER NOT NULL,
  purged_modseq INTEGER NOT NULL,
  next_uidvalidity INTEGER NOT NULL,
  next_message INTEGER NOT NULL,
  next_content INTEGER NOT NULL,
  bytes_live INTEGER NOT NULL,
  bytes_pending INTEGER NOT NULL,
  messages_live INTEGER NOT NULL,
  parse_version INTEGER NOT NULL,
  created INTEGER NOT NULL,
  changed INTEGER NOT NULL,
  hash_key BLOB NOT NULL
) STRICT;

CREATE TABLE mailbox(
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  parent_id INTEGER REFERENCES mailbox(id),
  name TEXT NOT NULL,
  role INTEGER NOT NULL DEFAULT 0,
  uidvalidity INTEGER NOT NULL,
  uidnext INTEGER NOT NULL DEFAULT 1,
  n_messages INTEGER NOT NULL DEFAULT 0,
  n_deleted INTEGER NOT NULL DEFAULT 0,
  n_unseen INTEGER NOT NULL DEFAULT 0,
  n_unread INTEGER NOT NULL DEFAULT 0,
  bytes INTEGER NOT NULL DEFAULT 0,
  bytes_deleted INTEGER NOT NULL DEFAULT 0,
  createseq INTEGER NOT NULL,
  modseq INTEGER NOT NULL,
  expunged INTEGER NOT NULL DEFAULT 0,
  oid BLOB NOT NULL
) STRICT;
CREATE UNIQUE INDEX mailbox_name ON mailbox(name) WHERE expunged = 0;
CREATE UNIQUE INDEX mailbox_role ON mailbox(role) WHERE role > 0 AND expunged = 0;
CREATE INDEX mailbox_parent ON mailbox(parent_id) WHERE parent_id IS NOT NULL;
CREATE INDEX mailbox_modseq ON mailbox(modseq);

-- Keywords in use in a mailbox; msg.kw is a bitmap over `bit`.
CREATE TABLE mailbox_keyword(
  mailbox_id INTEGER NOT NULL REFERENCES mailbox(id),
  bit INTEGER NOT NULL,
  name TEXT NOT NULL,
  uses INTEGER NOT NULL,
  PRIMARY KEY (mailbox_id, bit)
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX mailbox_keyword_name ON mailbox_keyword(mailbox_id, name);

CREATE TABLE subscription(name TEXT PRIMARY KEY) STRICT, WITHOUT ROWID;

CREATE TABLE segment(
  id INTEGER PRIMARY KEY,
  len INTEGER NOT NULL,
  dead INTEGER NOT NULL,
  sealed INTEGER NOT NULL
) STRICT;
CREATE TABLE unlink(seg INTEGER PRIMARY KEY) STRICT;

-- The bytes of a message, shared by its copies. seg NULL: still in `staged`. `frames`: compressed
-- lengths (32 bits little-endian each) of the independent pieces of 256 KiB, when there are more
-- than one.
CREATE TABLE content(
  id INTEGER PRIMARY KEY,
  oid BLOB NOT NULL,
  size INTEGER NOT NULL,
  zsize INTEGER NOT NULL,
  prefix INTEGER NOT NULL,
  dict INTEGER,
  seg INTEGER REFERENCES segment(id),
  off INTEGER,
  crc INTEGER NOT NULL,
  refcount INTEGER NOT NULL,
  created INTEGER NOT NULL,
  msgid_h INTEGER,
  subj_h INTEGER,
  hash BLOB,
  frames BLOB
) STRICT;
CREATE INDEX content_seg ON content(seg) WHERE seg IS NOT NULL;
CREATE INDEX content_msgid ON content(msgid_h) WHERE msgid_h IS NOT NULL;
CREATE INDEX content_subj ON content(subj_h) WHERE subj_h IS NOT NULL;
CREATE INDEX content_hash ON content(hash) WHERE hash IS NOT NULL;

CREATE TABLE staged(
  content_id INTEGER PRIMARY KEY REFERENCES content(id),
  data BLOB NOT NULL
) STRICT;

CREATE TABLE content_meta(
  content_id INTEGER PRIMARY KEY REFERENCES content(id),
  sent INTEGER,
  bits INTEGER NOT NULL,
  preview TEXT,
  msgid TEXT,
  subject TEXT NOT NULL,
  refs TEXT,
  envelope BLOB NOT NULL,
  bodystructure BLOB NOT NULL,
  sections BLOB NOT NULL,
  headers BLOB NOT NULL
) STRICT;

CREATE TABLE content_text(
  content_id INTEGER PRIMARY KEY REFERENCES content(id),
  size INTEGER NOT NULL,
  data BLOB NOT NULL
) STRICT;

-- Narrow: 60 bytes a row, so that listing a mailbox reads little.
CREATE TABLE msg(
  id INTEGER PRIMARY KEY,
  mailbox_id INTEGER NOT NULL REFERENCES mailbox(id),
  uid INTEGER NOT NULL,
  flags INTEGER NOT NULL,
  modseq INTEGER NOT NULL,
  createseq INTEGER NOT NULL,
  expunged INTEGER NOT NULL,
  content_id INTEGER,
  size INTEGER NOT NULL,
  received INTEGER NOT NULL,
  saved INTEGER NOT NULL,
  thread_id INTEGER NOT NULL,
  bits INTEGER NOT NULL,
  orig_mailbox_id INTEGER,
  destined_mailbox_id INTEGER,
  kw BLOB
) STRICT;
CREATE UNIQUE INDEX msg_uid ON msg(mailbox_id, uid);
CREATE INDEX msg_modseq ON msg(mailbox_id, modseq);
CREATE INDEX msg_thread ON msg(thread_id) WHERE expunged = 0;
CREATE INDEX msg_content ON msg(content_id) WHERE expunged = 0;
CREATE INDEX msg_gone ON msg(modseq) WHERE expunged = 1;

-- The message a message answers. Ancestors are found by walking.
CREATE TABLE thread_parent(
  msg_id INTEGER PRIMARY KEY,
  parent_id INTEGER NOT NULL
) STRICT;
CREATE INDEX thread_parent_parent ON thread_parent(parent_id);

-- Contents nobody refers to any more, until the readers' leases have passed `modseq`.
CREATE TABLE erase(
  content_id INTEGER PRIMARY KEY REFERENCES content(id),
  modseq INTEGER NOT NULL,
  since INTEGER NOT NULL
) STRICT;

CREATE TABLE delivered(
  delivery_id BLOB PRIMARY KEY,
  expires INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX delivered_expires ON delivered(expires);

CREATE TABLE outbox(
  seq INTEGER PRIMARY KEY AUTOINCREMENT,
  submission_id BLOB NOT NULL UNIQUE,
  content_id INTEGER NOT NULL REFERENCES content(id),
  envelope BLOB NOT NULL,
  release INTEGER,
  submitted INTEGER NOT NULL
) STRICT;
CREATE INDEX outbox_content ON outbox(content_id);
-- Submissions the queue has: repeats are recognised until `expires`.
CREATE TABLE submitted(
  submission_id BLOB PRIMARY KEY,
  expires INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX submitted_expires ON submitted(expires);

CREATE TABLE recipient(
  domain TEXT NOT NULL,
  localpart TEXT NOT NULL,
  org_domain TEXT NOT NULL,
  sent INTEGER NOT NULL,
  PRIMARY KEY (domain, localpart)
) STRICT, WITHOUT ROWID;
CREATE INDEX recipient_org ON recipient(org_domain);

CREATE TABLE outgoing(
  id INTEGER PRIMARY KEY,
  recipient TEXT NOT NULL,
  submitted INTEGER NOT NULL,
  first_time INTEGER NOT NULL
) STRICT;
CREATE INDEX outgoing_submitted ON outgoing(submitted);
CREATE INDEX outgoing_recipient ON outgoing(recipient);

CREATE TABLE rcpt_tls(
  domain TEXT PRIMARY KEY,
  updated INTEGER NOT NULL,
  starttls INTEGER NOT NULL,
  requiretls INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE annotation(
  id INTEGER PRIMARY KEY,
  mailbox_id INTEGER NOT NULL,
  name TEXT NOT NULL,
  is_string INTEGER NOT NULL,
  value BLOB,
  createseq INTEGER NOT NULL,
  modseq INTEGER NOT NULL,
  expunged INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX annotation_name ON annotation(mailbox_id, name) WHERE expunged = 0;
CREATE INDEX annotation_modseq ON annotation(modseq);

CREATE TABLE setting(key TEXT PRIMARY KEY, value BLOB NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE from_setting(address TEXT PRIMARY KEY, view INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE rule_no(
  kind INTEGER NOT NULL,
  value TEXT NOT NULL,
  PRIMARY KEY (kind, value)
) STRICT, WITHOUT ROWID;

-- How messages came: key is a keyed hash over kind and value.
CREATE TABLE reputation(
  key INTEGER NOT NULL,
  received INTEGER NOT NULL,
  content_id INTEGER NOT NULL REFERENCES content(id),
  PRIMARY KEY (key, received, content_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX reputation_content ON reputation(content_id);

CREATE TABLE junk_meta(
  one INTEGER PRIMARY KEY CHECK (one = 1),
  ham INTEGER NOT NULL,
  spam INTEGER NOT NULL
) STRICT;
CREATE TABLE junk_word(
  word TEXT PRIMARY KEY,
  ham INTEGER NOT NULL,
  spam INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
-- The text index, fed behind deliveries: contents up to `fed` are in it.
CREATE TABLE fts_state(
  one INTEGER PRIMARY KEY CHECK (one = 1),
  enabled INTEGER NOT NULL,
  fed INTEGER NOT NULL
) STRICT;
INSERT INTO fts_state VALUES (1, 0, 0);
CREATE VIRTUAL TABLE fts_head USING fts5(
  w, content = '', contentless_delete = 1, detail = none, tokenize = 'unicode61 remove_diacritics 0'
);
CREATE VIRTUAL TABLE fts_body USING fts5(
  w, content = '', contentless_delete = 1, detail = none, tokenize = 'unicode61 remove_diacritics 0'
);
CREATE TABLE word(w TEXT PRIMARY KEY) STRICT, WITHOUT ROWID;
