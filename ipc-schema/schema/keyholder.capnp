@0xd1728651c82771a9;
# What the keyholder serves: signatures, never keys.
#
# Served by: keyholder.
# Handed to: faces with TLS (TlsDoor), accountd (AccountdKeys), queue-runner (HostKeys).
# If a caller is taken over: it gets signatures for the names its capability was made for, in the
# shapes below, while it lives. It never gets a key, and every use is counted.

interface TlsDoor {
  # TLS as the names of one edge. Signatures themselves go over signing slots: a SOCK_SEQPACKET made
  # by keyholder on request at the connector (common/ipc, DialKind::SigningSlot), because rustls
  # asks synchronously.
  certificates @0 () -> (number :UInt64, list :List(Certificate));
  watch @1 (sink :import "types.capnp".Watched) -> (handle :import "types.capnp".Handle);

  struct Certificate {
    names @0 :List(Text);    # names of this edge that it is for
    chain @1 :List(Data);    # DER, end entity first
    keyId @2 :UInt64;        # first 8 octets of SHA-256 over the SPKI, big endian
    spki @3 :Data;
    schemes @4 :List(UInt16);  # TLS SignatureScheme code points the key can do
    isDefault @5 :Bool;      # for a client without SNI, or with a name none is for
  }
}

interface AccountdKeys {
  # For accountd alone.
  pepper @0 () -> (pepper :Pepper);
  dkim @1 (domain :Text) -> (signer :DkimSigner);
  # Only for domains that keyAdmin() was told are hosted.
  keyAdmin @2 () -> (admin :KeyAdmin);
}

interface HostKeys {
  # For queue-runner alone: signs as our own host name.
  dkim @0 () -> (signer :DkimSigner);
}

interface Pepper {
  # A secret that makes verifiers on a stolen disk useless. `account` is bound as associated data.
  seal @0 (account :Data, plain :Data) -> (sealed :Data);
  open @1 (account :Data, sealed :Data) -> (outcome :Opened);
  mac @2 (account :Data, data :Data) -> (mac :Data);
  const maxPlain :UInt32 = 4096;
  struct Opened {
    union {
      plain @0 :Data;
      damaged @1 :Void;      # not sealed by this pepper for this account
    }
  }
}

interface DkimSigner {
  # The right to sign mail as one domain. The domain is fixed when the capability is made, so it is
  # not an argument: nothing can be asked for in another domain's name.

  const maxHeaderBytes :UInt32 = 65536;

  describe @0 () -> (keys :List(Selector));
  # One signature per listed selector. They change when a key is rotated.

  struct Selector {
    selector @0 :Text;       # s= (RFC 6376 §3.5)
    algorithm @1 :Text;      # a=: rsa-sha256 or ed25519-sha256
  }

  sign @1 (selector :Text, headers :Data) -> (outcome :Outcome);
  # Sign a canonicalised header block (RFC 6376 §3.7). The last field must be our own
  # DKIM-Signature with an empty b=; a block that names another domain is a failed call.

  struct Outcome {
    union {
      signature @0 :Data;        # raw octets; the caller does the base64 and the folding
      staleSelector @1 :Void;    # rotated since describe(): describe again, retry; not an error
      noKey @2 :Void;            # the domain has no key (yet)
      overRate @3 :Void;         # above the configured rate of this edge: try later
    }
  }
}

interface KeyAdmin {
  hosted @0 (domains :List(Text)) -> ();
  # The domains DkimSigners may be made for, whole list.
  generateDkim @1 (domain :Text, selector :Text, algorithm :Algorithm) -> (record :Text);
  # Makes a key (kept if it exists) and gives the TXT record to publish.
  listDkim @2 (domain :Text) -> (keys :List(PublicKey));
  retireDkim @3 (domain :Text, selector :Text) -> ();
  # Moves the key file to old/.

  enum Algorithm { ed25519 @0; rsa2048 @1; }
  struct PublicKey {
    selector @0 :Text;
    algorithm @1 :Text;
    record @2 :Text;
  }
}
