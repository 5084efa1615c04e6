@0xb5b2209597b7a08a;
# Logging in: SASL steps, tickets, and what comes of them.
#
# Served by: accountd.
# Handed to: smtpd submission, imapd front, httpd web (Authenticator); imapd session, httpd web
# (Tickets).
# If a caller is taken over: it sees the credentials typed into it and may try passwords within the
# limits; a ticket works on the edge it was made for and nowhere else.

using Types = import "types.capnp";
using Account = import "account.capnp";
using Inbound = import "inbound.capnp";
using Control = import "control.capnp";

interface Authenticator {
  mechanisms @0 (peer :Types.Peer) -> (names :List(Text));
  # SASL mechanisms to announce on a connection like this one; empty where TLS has to come first.

  start @1 (mechanism :Text, peer :Types.Peer, initial :Data, hasInitial :Bool) -> (step :Step);
  # RFC 4422 §3. An unknown mechanism is a failure step, not an error.

  const maxMessage :UInt32 = 12288;
}

struct Step {
  union {
    challenge :group {
      data @0 :Data;
      exchange @1 :Exchange;
    }
    success @2 :Success;
    failure @3 :Failure;
  }
  told @4 :Text;             # with accountDisabled: the administrator's words for its user
}

interface Exchange {
  respond @0 (data :Data) -> (step :Step);
  # An exchange that is dropped was cancelled by the client, and counts as an attempt that failed.
}

struct Success {
  additional @0 :Data;       # data with success (RFC 4422 §3.6), empty if none
  hasAdditional @1 :Bool;
  login @2 :Text;            # the login address, for logs
  union {
    submitter :group {       # to smtpd submission
      submitter @3 :Inbound.Submitter;
      ticket @4 :Data;
    }
    handOver :group {        # to imapd front
      sessionInstance @5 :UInt16;   # the session instance this account is served by
      ticket @6 :Data;
    }
    account :group {         # to httpd web
      account @7 :Account.Account;
      ticket @8 :Data;
    }
  }
}

enum Failure {
  badCredentials @0;         # wrong password, unknown user, account that may not log in: one answer
  badMessage @1;             # not well-formed for the mechanism
  unknownMechanism @2;
  tlsRequired @3;
  tooManyFailures @4;        # refused by the limiter without looking
  temporary @5;              # a fault or overload of ours
  cancelled @6;
  accountDisabled @7;        # only after a correct proof, with Step.told
  channelBinding @8;         # the binding is not this connection's: somebody is in between
}

interface Tickets {
  redeem @0 (ticket :Data, peer :Types.Peer) -> (outcome :Redeemed);
  # First use in the process the ticket was made for, and resume after accountd's restart alike.
  renew @1 (ticket :Data) -> (outcome :Renewed);
}

struct Redeemed {
  union {
    account :group {
      account @0 :Account.Account;
      ticket @1 :Data;       # newer; replaces the one shown
      login @2 :Text;
    }
    refused @3 :Void;        # expired, revoked, or made for another edge
  }
}

struct Renewed {
  union {
    ticket @0 :Data;
    refused @1 :Void;
  }
}

struct ResumeSubmitter {
  union {
    submitter :group {
      submitter @0 :Inbound.Submitter;
      ticket @1 :Data;
    }
    refused @2 :Void;
  }
}

struct AdminOutcome {
  union {
    admin @0 :Control.AccountAdmin;
    failure @1 :Failure;
  }
}
