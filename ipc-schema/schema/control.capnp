@0xedbc60a120a78f4a;
# The administrator's interfaces, on each vault's own control socket; the peer's uid decides.
# This file promises compatibility: methods are only appended.
#
# Served by: accountd (AccountAdmin), queue-runner (QueueAdmin), keyholder (KeyControl).
# Handed to: moxctl; AccountAdmin also to httpd admin after an administrator's log-in.
# If a caller is taken over: what an administrator may do.

using Types = import "types.capnp";

struct Problem {
  # What went wrong, in words for an administrator.
  kind @0 :Kind;
  text @1 :Text;
  enum Kind { none @0; missing @1; exists @2; invalid @3; temporary @4; inUse @5; }
}

interface AccountAdmin {
  accounts @0 (after :Text) -> (list :List(AccountInfo), more :Bool);
  accountAdd @1 (name :Text, address :Text, password :Text) -> (problem :Problem);
  accountRemove @2 (name :Text) -> (problem :Problem);
  accountDisable @3 (name :Text, message :Text) -> (problem :Problem);
  accountEnable @4 (name :Text) -> (problem :Problem);
  accountPassword @5 (name :Text, password :Text) -> (problem :Problem);
  accountLogins @6 (name :Text, max :UInt32) -> (list :List(Login), problem :Problem);
  accountVerify @7 (name :Text, fix :Bool, progress :Progress) -> (findings :List(Finding), problem :Problem);

  clientKeys @8 (account :Text) -> (list :List(ClientKey), problem :Problem);
  clientKeyAdd @9 (account :Text, fingerprint :Data, label :Text, login :Text) -> (problem :Problem);
  clientKeyRemove @10 (fingerprint :Data) -> (problem :Problem);

  addresses @11 (account :Text) -> (list :List(Text), problem :Problem);
  addressAdd @12 (address :Text, account :Text) -> (problem :Problem);
  addressRemove @13 (address :Text) -> (problem :Problem);

  domains @14 () -> (list :List(DomainInfo));
  domainAdd @15 (domain :Text, account :Text) -> (problem :Problem);
  domainRemove @16 (domain :Text) -> (problem :Problem);

  messageShow @17 (account :Text, mailbox :Text, uid :UInt32, sink :Types.ByteSink) -> (problem :Problem);
  # At the control socket alone; refused to httpd admin.
  directoryRead @18 () -> (text :Data, revision :UInt64);
  # domains.toml as it is.
  directoryWrite @19 (text :Data, revision :UInt64) -> (problem :Problem);
  # Validated as a whole; `revision` must be the one that was read.
  status @20 () -> (lines :List(Types.KeyValue));
  adminPassword @21 (password :Text) -> (problem :Problem);
  limitsClear @22 () -> ();
  # Forget counted connections and failed log-ins.
}

struct AccountInfo {
  name @0 :Text;
  id @1 :Text;
  addresses @2 :List(Text);
  disabled @3 :Bool;
  usedBytes @4 :UInt64;
  quotaBytes @5 :UInt64;
  messages @6 :UInt64;
  state @7 :Text;            # "ok", "damaged", "newer"
}

struct DomainInfo {
  name @0 :Text;
  accounts @1 :UInt32;
  disabled @2 :Bool;
}

struct Login {
  firstUnixNs @0 :Int64;
  lastUnixNs @1 :Int64;
  count @2 :UInt64;
  ip @3 :Text;
  protocol @4 :Text;
  mechanism @5 :Text;
  login @6 :Text;
  result @7 :Text;
  tls @8 :Text;
  localIp @9 :Text;
  listener @10 :Text;
  clientKey @11 :Data;     # of EXTERNAL: SHA-256 of the SPKI
  agent @12 :Text;         # as Types.Peer
}

struct ClientKey {
  fingerprint @0 :Data;
  label @1 :Text;
  login @2 :Text;
}

struct Finding {
  account @0 :Text;
  class @1 :Text;
  text @2 :Text;
  fixed @3 :Bool;
  command @4 :Text;          # what helps, if --fix does not
}

interface Progress {
  at @0 (done :UInt64, total :UInt64, what :Text) -> stream;
}

interface QueueAdmin {
  list @0 (filter :QueueFilter, after :Data) -> (items :List(QueueItem), more :Bool);
  retry @1 (filter :QueueFilter) -> (count :UInt64);
  drop @2 (filter :QueueFilter) -> (count :UInt64);
  show @3 (queueId :Data, sink :Types.ByteSink) -> (problem :Problem);
  status @4 () -> (lines :List(Types.KeyValue));
}

struct QueueFilter {
  ids @0 :List(Data);
  account @1 :Text;
  from @2 :Text;             # address, or @domain
  to @3 :Text;
  all @4 :Bool;              # must be set to mean "everything"
}

struct QueueItem {
  id @0 :Data;
  account @1 :Text;
  from @2 :Text;
  to @3 :Text;
  size @4 :UInt64;
  queuedUnixNs @5 :Int64;
  nextAttemptUnixNs @6 :Int64;
  attempts @7 :UInt32;
  lastError @8 :Text;
  submission @9 :Data;
}

interface KeyControl {
  keys @0 () -> (list :List(Text));
  status @1 () -> (lines :List(Types.KeyValue));
}
