@0x8899f6c60bcfef67;
# What each process finds behind its edge to accountd: one door per edge, opening on exactly the
# rights of the wiring table. Every door also has Config and Gate.
#
# Served by: accountd.
# Handed to: the client role in the name of the door; accountd knows it by the connector's slot.
# If a caller is taken over: it gets what its own door shows.

using Types = import "types.capnp";
using Auth = import "auth.capnp";
using Inbound = import "inbound.capnp";
using Queue = import "queue.capnp";
using Control = import "control.capnp";

interface Door {
  config @0 () -> (config :Config);
  gate @1 () -> (gate :Gate);
}

interface MxDoor extends(Door) {
  # smtpd mx
  inbound @0 () -> (inbound :Inbound.Inbound);
}

interface SubmissionDoor extends(Door) {
  # smtpd submission: a log-in gives a Submitter.
  authenticator @0 () -> (authenticator :Auth.Authenticator);
  resume @1 (ticket :Data) -> (outcome :Auth.ResumeSubmitter);
}

interface FrontDoor extends(Door) {
  # imapd front: a log-in gives a ticket for one session instance, never an account.
  authenticator @0 () -> (authenticator :Auth.Authenticator);
}

interface SessionDoor extends(Door) {
  # imapd session
  tickets @0 () -> (tickets :Auth.Tickets);
}

interface WebDoor extends(Door) {
  # httpd web: a log-in gives an Account.
  authenticator @0 () -> (authenticator :Auth.Authenticator);
  tickets @1 () -> (tickets :Auth.Tickets);
}

interface AdminDoor extends(Door) {
  # httpd admin: a log-in of an administrator gives accountd's Admin.
  login @0 (password :Text, peer :Types.Peer) -> (outcome :Auth.AdminOutcome);
}

interface QueueDoor extends(Door) {
  # queue-runner
  outbox @0 () -> (outbox :Queue.Outbox);
  delivery @1 () -> (delivery :Queue.Delivery);
}

interface Config {
  # The dynamic configuration, as much of it as this edge needs, in numbered immutable snapshots.
  current @0 () -> (number :UInt64, snapshot :Data);   # JSON of config::Snapshot for this edge
  watch @1 (sink :Types.Watched) -> (handle :Types.Handle);
}

interface Gate {
  # Limits per address class, counted in one place. Reported by the face before its greeting.
  enter @0 (peer :Types.Peer) -> (verdict :Verdict);
  # The place in the limit of concurrent connections is held as long as the pass is.
  struct Verdict {
    union {
      pass @0 :Types.Handle;
      tooManyConnections @1 :Void;
      tooManyPerMinute @2 :Void;
      tooManyFailedLogins @3 :Void;
    }
  }
}
