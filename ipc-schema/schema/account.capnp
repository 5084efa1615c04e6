@0xba69689b287a7902;
# One account's mail: mailboxes, rows, content, changes.
#
# Served by: accountd.
# Handed to: imapd session and httpd web, one object per session that logged in.
# If a caller is taken over: the accounts with live sessions in it, nothing else. The account is
# fixed when the object is made; no method takes an account's name. narrow() gives less away.

using Types = import "types.capnp";

interface Account {
  describe @0 () -> (login :Text, quotaBytes :UInt64, usedBytes :UInt64, modseq :UInt64);
  # quotaBytes 0: no limit.

  mailboxes @1 (sinceModseq :UInt64) -> (list :List(MailboxInfo), modseq :UInt64, subscriptions :List(Text));
  # All live mailboxes (0), or those changed after a modseq, expunged ones among them.

  create @2 (name :Text, role :Role) -> (outcome :MailboxOutcome);
  # Parents are made when missing.
  delete @3 (name :Text) -> (outcome :MailboxOutcome);
  rename @4 (from :Text, to :Text) -> (outcome :MailboxOutcome);
  # RFC 9051 §6.3.6: INBOX moves its messages and stays.
  subscribe @5 (name :Text, on :Bool) -> (outcome :MailboxOutcome);

  open @6 (name :Text, writable :Bool) -> (outcome :Opened);

  watch @7 (sink :Types.Watched) -> (handle :Types.Handle, modseq :UInt64);
  # "account is at modseq N": read what is newer by mailboxes() and Mailbox.changes().

  append @8 (mailbox :Text, flags :Flags, receivedUnixNs :Int64, sizeHint :UInt64, binary :Bool) -> (outcome :AppendStarted);
  # receivedUnixNs 0: now. Without `binary` a line that ends in LF alone gets its CR.

  narrow @9 (scope :Scope) -> (account :Account);
  # The same account with fewer rights.

  struct Scope {
    writable @0 :Bool;
    mailbox @1 :Text;        # "" = all; else only this one
    appendOnly @2 :Bool;
  }

  const maxMailboxes :UInt32 = 10000;
}

enum Role { none @0; archive @1; drafts @2; junk @3; sent @4; trash @5; }

struct MailboxInfo {
  id @0 :UInt64;
  name @1 :Text;             # UTF-8, NFC, '/' separates; the inbox is "Inbox"
  role @2 :Role;
  uidValidity @3 :UInt32;
  uidNext @4 :UInt32;
  total @5 :UInt32;          # live messages, those with \Deleted too
  deleted @6 :UInt32;
  unseen @7 :UInt32;
  bytes @8 :UInt64;
  modseq @9 :UInt64;
  expunged @10 :Bool;
  oid @11 :Data;
  keywords @12 :List(Text);  # in the order of the bits in Row.keywords
  firstUnseenUid @13 :UInt32;  # only filled by open()
}

struct MailboxOutcome {
  union {
    done @0 :Void;
    exists @1 :Void;
    missing @2 :Void;
    hasChildren @3 :Void;
    cannot @4 :Text;         # refused for a reason a user may read (Inbox, bad name)
    temporary @5 :Void;
    readOnly @6 :Void;
    limit @7 :Void;          # as many as an account may have
  }
}

struct Opened {
  union {
    mailbox :group {
      mailbox @0 :Mailbox;
      info @1 :MailboxInfo;
    }
    missing @2 :Void;
    temporary @3 :Void;
  }
}

struct Flags {
  system @0 :UInt32;         # bits: 0 seen, 1 answered, 2 flagged, 3 deleted, 4 draft, 5 forwarded,
                             # 6 junk, 7 notjunk, 8 phishing, 9 mdnsent
  keywords @1 :List(Text);   # further keywords, lower case
}

struct AppendStarted {
  union {
    sink @0 :AppendSink;
    missing @1 :Void;        # no such mailbox: [TRYCREATE]
    overQuota @2 :Void;
    tooLarge @3 :Void;
    keywordLimit @4 :Void;
    temporary @5 :Void;
    readOnly @6 :Void;
  }
}

interface AppendSink {
  const maxChunk :UInt32 = 65536;
  write @0 (chunk :Data) -> stream;
  commit @1 () -> (outcome :Appended);
}

struct Appended {
  union {
    stored :group {
      uidValidity @0 :UInt32;
      uid @1 :UInt32;
      modseq @2 :UInt64;
    }
    overQuota @3 :Void;
    missing @4 :Void;        # mailbox was deleted meanwhile
    keywordLimit @5 :Void;
    temporary @6 :Void;
    diskFull @7 :Void;
  }
}

struct Row {
  # One message of a mailbox, narrow.
  uid @0 :UInt32;
  system @1 :UInt32;         # flag bits as in Flags.system
  keywords @2 :Data;         # bitmap over MailboxInfo.keywords, least significant bit first; empty = none
  modseq @3 :UInt64;
  size @4 :UInt64;
  receivedUnixNs @5 :Int64;
  savedUnixNs @6 :Int64;     # 0 = unknown
  expunged @7 :Bool;         # only in changes()
  contentId @8 :UInt64;
  emailOid @9 :Data;
  threadId @10 :UInt64;
}

struct Meta {
  # What the parser found at delivery, stored and returned as it was (common/message encodes and
  # decodes it). Empty blobs: the message could not be parsed, treat it as opaque bytes.
  uid @0 :UInt32;
  envelope @1 :Data;
  structure @2 :Data;
  headers @3 :Data;          # header values blob (search and list)
  preview @4 :Text;
  sentUnixNs @5 :Int64;
}

struct Want {
  envelope @0 :Bool;
  structure @1 :Bool;
  headers @2 :Bool;
  preview @3 :Bool;
}

struct UidRange { first @0 :UInt32; last @1 :UInt32; }

interface Mailbox {
  # One open mailbox of one session. It holds a lease: content of what this session can still name
  # is kept.
  rows @0 (fromUid :UInt32, toUid :UInt32) -> (rows :List(Row), more :Bool, modseq :UInt64);
  # Live messages in UID order from fromUid up to toUid (0: to the end), in batches under the message
  # bound.

  changes @1 (sinceModseq :UInt64) -> (rows :List(Row), more :Bool, modseq :UInt64, info :MailboxInfo, gone :Bool);
  # Rows changed after sinceModseq by modseq, expunged ones too. `more`: call again from the last
  # row's modseq. `gone`: the mailbox was deleted.

  meta @2 (uids :List(UidRange), want :Want) -> (items :List(Meta), nextUid :UInt32);
  # nextUid 0: all done; else call again with what is left from nextUid on.

  content @3 (uid :UInt32, offset :UInt64, length :UInt64, sink :Types.ByteSink) -> (outcome :ContentOutcome);
  # Streams a range; length 0 = to the end. Answers after the sink's end().

  small @4 (uids :List(UidRange), maxEach :UInt32) -> (items :List(Small), nextUid :UInt32);
  # Whole contents up to maxEach octets each, up to 256 KiB and 100 messages a call; larger ones come
  # back without data and are read by content().

  store @5 (uids :List(UidRange), op :StoreOp, flags :Flags, unchangedSince :UInt64, hasUnchangedSince :Bool) -> (outcome :Stored);
  copy @6 (uids :List(UidRange), to :Text) -> (outcome :Copied);
  move @7 (uids :List(UidRange), to :Text) -> (outcome :Copied);
  expunge @8 (uids :List(UidRange), onlyDeleted :Bool) -> (outcome :Expunged);
  # An empty list is all messages.

  searchText @9 (scope :TextScope, needle :Text, header :Text, uids :List(UidRange)) -> (uids :List(UidRange), outcome :MailboxOutcome);
  # Substring search in decoded text (RFC 9051 §6.4.4), case folded. `header`: field name for scope
  # header.

  applied @10 (modseq :UInt64) -> ();
  # The client of this session has been told everything up to modseq: moves the lease.
}

enum TextScope { text @0; body @1; header @2; subject @3; from @4; to @5; cc @6; bcc @7; }

enum StoreOp { replace @0; add @1; remove @2; }

struct Small {
  uid @0 :UInt32;
  size @1 :UInt64;
  data @2 :Data;
  tooLarge @3 :Bool;
  missing @4 :Bool;
}

struct ContentOutcome {
  union {
    sent @0 :UInt64;
    missing @1 :Void;        # expunged and erased meanwhile
    temporary @2 :Void;
  }
}

struct Stored {
  union {
    done :group {
      modseq @0 :UInt64;             # of this change; 0 if there was nothing to change
      modified @1 :List(UidRange);   # failed UNCHANGEDSINCE (RFC 7162 §3.1.3)
    }
    keywordLimit @2 :Void;
    readOnly @3 :Void;
    temporary @4 :Void;
    diskFull @5 :Void;
  }
}

struct Copied {
  union {
    done :group {
      uidValidity @0 :UInt32;
      from @1 :List(UidRange);       # in this order ...
      to @2 :List(UidRange);         # ... these
      modseq @3 :UInt64;
    }
    missing @4 :Void;        # no such target: [TRYCREATE]
    overQuota @5 :Void;
    readOnly @6 :Void;
    temporary @7 :Void;
    keywordLimit @8 :Void;
    diskFull @9 :Void;
  }
}

struct Expunged {
  union {
    done :group {
      uids @0 :List(UidRange);
      modseq @1 :UInt64;
    }
    readOnly @2 :Void;
    temporary @3 :Void;
    diskFull @4 :Void;
  }
}
