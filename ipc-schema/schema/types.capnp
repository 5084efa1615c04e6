@0xa91b2f52081e4127;
# Shapes that several interfaces use: where a client comes from, pages of rows, streams of bytes.
#
# Served by: nobody, these are structs and the one sink every body goes through.
# Handed to: every process that speaks Cap'n Proto.
# If a caller is taken over: nothing is granted here.

struct Peer {
  # Where a connection comes from, as the face that accepted it says. A face that was taken over
  # can claim anything here, so it is evidence for judgement and limits, never authority.
  ip @0 :Data;             # 4 or 16 octets, IPv4-mapped IPv6 given as 4
  port @1 :UInt16;
  localIp @2 :Data;        # the address of ours it came to
  session @3 :Data;        # 8 octets, SessionId: the same in all logs
  tls @4 :TlsFacts;
  listener @5 :Text;       # name of the listener in mox.toml
  agent @6 :Text;          # what the client called itself so far: IMAP's ID, EHLO's name; for the history
}

struct TlsFacts {
  version @0 :UInt16;      # 0 = no TLS, else 0x0303 or 0x0304
  cipherSuite @1 :UInt16;
  exporter @2 :Data;       # RFC 9266 tls-exporter channel binding (32 octets), empty without TLS 1.3 or EMS
  endPoint @3 :Data;       # RFC 5929 tls-server-end-point of our certificate
  clientKey @4 :Data;      # SHA-256 of the client certificate's SPKI, empty if none was shown
  serverName @5 :Text;     # SNI, empty if none
}

interface ByteSink {
  # Takes a body in pieces. Dropped without end(): it never happened.
  const maxChunk :UInt32 = 65536;
  write @0 (chunk :Data) -> stream;
  end @1 ();
}

interface Watched {
  # A callback: what was being watched is now at this number, or newer. Calls are coalesced by the
  # watched side, at most one is on its way.
  changed @0 (number :UInt64);
  revoked @1 (why :Text);
  # The right the watch came from is gone; nothing follows.
}

interface Handle {
  # Holds something while it is held (a watch, a lease, a connection's place in a limit).
}

struct KeyValue {
  key @0 :Text;
  value @1 :Data;
}
