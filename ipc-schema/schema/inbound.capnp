@0xd2b3caea28494ae6;
# Mail on its way in: from strangers (Inbound) and from our users (Submitter).
#
# Served by: accountd.
# Handed to: smtpd mx (Inbound); smtpd submission, one object per log-in (Submitter).
# If a caller is taken over: Inbound lets it deliver any bytes to a local recipient with any claimed
# peer; a Submitter lets it send as its user, within the limits, until it expires.

using Types = import "types.capnp";

interface Inbound {
  begin @0 (peer :Types.Peer, helo :Text, from :Text, params :MailParams) -> (outcome :Begun);
  # MAIL FROM. `from` is the reverse-path without brackets, empty for null.
}

struct MailParams {
  size @0 :UInt64;           # declared by SIZE=, 0 if not
  body @1 :Body;
  smtputf8 @2 :Bool;
  requireTls @3 :Bool;
  enum Body { sevenBit @0; eightBitMime @1; }
  extended @4 :Bool;         # the client said EHLO, else HELO
}

struct Begun {
  union {
    transaction @0 :Transaction;
    refused @1 :Refusal;
  }
}

struct Refusal {
  # What the peer is to be told, already decided; the face prints it.
  code @0 :UInt16;           # 4yz or 5yz
  enhanced @1 :Text;         # "4.2.2"
  text @2 :Text;             # generic, one line, ASCII
  close @3 :Bool;            # end the connection after the reply
}

interface Transaction {
  recipient @0 (to :Text) -> (outcome :RcptOutcome);
  # RCPT TO, without brackets. Answered in order.
  data @1 () -> (sink :MessageSink);
  # Once, after at least one recipient was accepted. The bytes are the message after dot-unstuffing
  # without any trace header: accountd adds Received and Return-Path from `received`.
}

struct RcptOutcome {
  union {
    accepted @0 :Void;
    refused @1 :Refusal;
  }
}

interface MessageSink {
  const maxChunk :UInt32 = 65536;
  write @0 (chunk :Data) -> stream;
  commit @1 (received :Text) -> (outcome :Committed);
  # After the end of DATA. Answers only when every accepted copy is durable. `received` is the
  # Received header field of this hop (RFC 5321 §4.4), CRLF included.
  heard @2 ();
  # After `accepted` of a submission: the client has spoken since, so it heard that. The same octets
  # again are meant then, and no repeat. A caller that lies can only make one message two, which it
  # can do anyway.
}

struct Committed {
  union {
    accepted :group {
      id @0 :Text;           # for the reply and the log
    }
    refused @1 :Refusal;
  }
}

interface Submitter {
  # The right to send as one account.
  begin @0 (peer :Types.Peer, helo :Text, from :Text, params :MailParams, extra :SubmissionParams) -> (outcome :Begun);
}

struct SubmissionParams {
  holdUntilUnixNs @0 :Int64; # RFC 4865; 0 = now
  holdAsked @1 :Text;        # as the client said it, which is the same in a repeat; empty: not at all
}
