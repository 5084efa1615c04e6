@0xa5c69f2789d50977;
# DNS answers with their DNSSEC status.
#
# Served by: resolver.  Handed to: accountd, queue-runner, outbound.
# If a caller is taken over: it may ask DNS questions, that is tell names to name servers.

interface Resolver {
  lookup @0 (name :Text, kind :Kind) -> (answer :Answer);
  reverse @1 (ip :Data) -> (answer :Answer);
  const maxRecords :UInt32 = 256;
}

enum Kind { a @0; aaaa @1; mx @2; txt @3; tlsa @4; cname @5; ns @6; srv @7; ptr @8; caa @9; }

struct Answer {
  union {
    records @0 :List(Record);
    noSuchName @1 :Void;     # NXDOMAIN
    noData @2 :Void;
    failed @3 :Failure;
  }
  authentic @4 :Bool;        # DNSSEC validated, for negative answers too
  ttlSeconds @5 :UInt32;
  finalName @6 :Text;        # after CNAMEs
}

enum Failure { timeout @0; servfail @1; bogus @2; badName @3; overload @4; }

struct Record {
  union {
    ip @0 :Data;
    mx :group { preference @1 :UInt16; exchange @2 :Text; }
    txt @3 :Data;            # character strings concatenated
    name @4 :Text;           # CNAME, NS, PTR
    tlsa :group { usage @5 :UInt8; selector @6 :UInt8; matching @7 :UInt8; data @8 :Data; }
    srv :group { priority @9 :UInt16; weight @10 :UInt16; port @11 :UInt16; target @12 :Text; }
    other @13 :Data;
  }
}
