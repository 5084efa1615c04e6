@0xf4cd6ebc73c8396d;
# What imapd front tells the session instance it hands a connection to. A struct sent with one
# descriptor over the connector; not an interface.
#
# Served by: nobody.  Handed to: imapd session, by imapd front.
# If the sender is taken over: a session instance relays what it says to the account of the ticket.

using Types = import "types.capnp";

struct HandOver {
  ticket @0 :Data;
  peer @1 :Types.Peer;
  tag @2 :Text;              # of the log-in command: the session answers it
  login @3 :Text;
  buffered @4 :Data;         # octets read from the client behind the log-in command, not yet parsed
  state @5 :UInt32;          # bits: 0 = log-in was AUTHENTICATE, 1 = client sent ID before
  additional @6 :Data;       # SASL data with success, already sent as a challenge if the mechanism needs it
  const maxBytes :UInt32 = 131072;
}
