@0xd997f83228b9469a;
# Between accountd and queue-runner: what users sent (Outbox), and what comes back to local
# recipients (Delivery). queue-runner pulls; accountd never calls it.
#
# Served by: accountd.  Handed to: queue-runner.
# If a caller is taken over: it reads queued mail and delivers anything into mailboxes.

using Types = import "types.capnp";

interface Outbox {
  watch @0 (sink :Types.Watched) -> (handle :Types.Handle);
  # changed(n): n submissions were committed since accountd started.
  take @1 (max :UInt32) -> (items :List(Item), more :Bool);
  # Oldest first over all accounts; stays there until done().
  content @2 (submission :Data, sink :Types.ByteSink) -> (found :Bool);
  done @3 (submission :Data) -> ();
  # The submission is durable in the queue: forget the row. Idempotent.
  const maxTake :UInt32 = 100;
}

struct Item {
  submission @0 :Data;       # 16 octets, SubmissionId
  account @1 :Text;          # account name, for logs and queue list
  from @2 :Text;             # reverse-path, "" = null
  recipients @3 :List(Rcpt);
  size @4 :UInt64;
  headerLength @5 :UInt64;   # of the content, for DSNs
  smtputf8 @6 :Bool;
  eightBit @7 :Bool;
  requireTls @8 :Bool;
  submittedUnixNs @9 :Int64;
  notBeforeUnixNs @10 :Int64;  # RFC 4865 future release, else 0
  messageId @11 :Text;
  subject @12 :Text;
}

struct Rcpt {
  address @0 :Text;
  local @1 :Bool;            # hosted here when it was submitted; asked again at delivery
}

interface Delivery {
  deliver @0 (queueId :Data, from :Text, to :Text, headerPrefix :Text, notification :Bool) -> (sink :DeliverySink);
  # A local recipient, judged as origin local. Exactly once per (queueId, account). notification: the
  # queue tells one of our users what became of his mail, which it does also where his domain is
  # switched off.
  isLocal @1 (addresses :List(Text), from :Text) -> (local :List(Bool), suspended :Bool);
  # Asked before each attempt. suspended: the domain of this reverse-path is switched off, and what
  # was taken from it before waits.
}

interface DeliverySink {
  const maxChunk :UInt32 = 65536;
  write @0 (chunk :Data) -> stream;
  commit @1 () -> (outcome :Delivered);
}

struct Delivered {
  union {
    stored @0 :Void;
    duplicate @1 :Void;      # this delivery was made before; nothing was stored again
    notLocal @2 :Void;       # domain not hosted (any more)
    refused :group {         # permanent or temporary by code
      code @3 :UInt16;
      enhanced @4 :Text;
      text @5 :Text;
    }
    fault @6 :Void;          # of accountd's, whatever the message is: come again soon
  }
}
