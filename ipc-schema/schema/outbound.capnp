@0x9ebc57f295cef225;
# Delivering to other servers.
#
# Served by: outbound.  Handed to: queue-runner.
# If the server is taken over: jobs in hand, and false reports about them.

interface Outbound {
  deliver @0 (job :Job) -> (delivery :Delivery);
}

struct Job {
  domain @0 :Text;           # recipients are of this one domain
  from @1 :Text;             # reverse-path, "" = null
  recipients @2 :List(Text); # at most 100
  size @3 :UInt64;
  smtputf8 @4 :Bool;
  eightBit @5 :Bool;
  requireTls @6 :Bool;
  ehlo @7 :Text;             # our host name
  tls @8 :TlsPolicy;
  attempt @9 :UInt32;        # number of this attempt, from 1: later ones may try without TLS
  session @10 :Data;         # SessionId for logs
}

enum TlsPolicy { opportunistic @0; require @1; none @2; }

interface Delivery {
  const maxChunk :UInt32 = 65536;
  write @0 (chunk :Data) -> stream;
  finish @1 () -> (report :Report);
  # Content first, then the dialogue with the remote server; dropping cancels it.
}

struct Report {
  recipients @0 :List(RecipientResult);
  log @1 :List(Text);        # one line per host tried
  nextHost @2 :Text;         # host that answered last
  tlsUsed @3 :Bool;
}

struct RecipientResult {
  address @0 :Text;
  kind @1 :Kind;
  code @2 :UInt16;           # SMTP code, 0 if none
  enhanced @3 :Text;
  text @4 :Text;             # of the remote server, at most 1,000 octets
  remoteHost @5 :Text;
  enum Kind { delivered @0; permanent @1; temporary @2; }
}
