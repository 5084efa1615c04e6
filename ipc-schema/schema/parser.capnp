@0xa418b6d0d31a5aee;
# Reading message content: bytes in, facts out, nothing kept.
#
# Served by: parser, one process per CPU.
# Handed to: accountd.
# If the server is taken over: it sees the message in hand and may lie about it until it is
# recycled; accountd checks offsets, order and counts of everything it says.

interface Parser {
  job @0 (sizeHint :UInt64) -> (job :Job);
  # One at a time; a second one waits.
}

interface Job {
  const maxChunk :UInt32 = 65536;
  write @0 (chunk :Data) -> stream;
  finish @1 () -> (facts :Facts);
}

interface Facts {
  # The result, in pieces below the message bound.
  summary @0 () -> (summary :Summary);
  blob @1 (kind :Blob, offset :UInt64) -> (data :Data, total :UInt64);
  text @2 (index :UInt32, offset :UInt64) -> (data :Data, total :UInt64);
  # Decoded text of one part, UTF-8.

  const maxPiece :UInt32 = 262144;
  const maxBlob :UInt32 = 33554432;
  const maxTextParts :UInt32 = 10000;
}

enum Blob { envelope @0; structure @1; headers @2; }

struct Summary {
  size @0 :UInt64;
  headerLength @1 :UInt64;   # up to and with the empty line
  lines @2 :UInt64;
  opaque @3 :Bool;           # over a limit or not a message: stored as bytes
  sentUnixNs @4 :Int64;
  hasDate @5 :Bool;
  messageId @6 :Text;        # canonical (account-store §6), "" if none
  references @7 :List(Text); # canonical, at most 1,000
  subjectBase @8 :Text;
  isResponse @9 :Bool;
  isDsn @10 :Bool;
  fromAddresses @11 :List(Text);   # every address of every From field, at most 100
  fromFieldCount @12 :UInt32;
  receivedCount @13 :UInt32;
  preview @14 :Text;
  textParts @15 :UInt32;
  recipients @16 :List(Text);      # To, Cc and Bcc, at most 1,000
  parts @17 :UInt32;
}
