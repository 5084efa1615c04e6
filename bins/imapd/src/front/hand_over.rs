//! What is said of a connection when it goes from front to a session.

use crate::peer::Peer;
use imap::Tag;
use ipc::{
    capnp::{self, message::Builder, message::ReaderOptions, serialize},
    schema::imap_capnp::hand_over,
};

/// A logged-in connection.
#[derive(Debug)]
pub(crate) struct HandOver {
    pub(crate) ticket: Vec<u8>,
    pub(crate) peer: Peer,
    pub(crate) tag: Tag,
    pub(crate) login: String,
    /// Read from the client behind the log-in, not interpreted yet.
    pub(crate) buffered: Vec<u8>,
    pub(crate) authenticate: bool,
}

impl HandOver {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut message = Builder::new_default();
        let mut root: hand_over::Builder<'_> = message.init_root();
        root.set_ticket(&self.ticket);
        self.peer.write(root.reborrow().init_peer());
        root.set_tag(self.tag.as_str());
        root.set_login(&self.login);
        root.set_buffered(&self.buffered);
        root.set_state(u32::from(self.authenticate));
        serialize::write_message_to_words(&message)
    }

    /// From what front sent: as far as its format goes, front is not believed.
    pub(crate) fn decode(message: &[u8]) -> Result<Self, capnp::Error> {
        let mut options = ReaderOptions::new();
        options.traversal_limit_in_words(Some(hand_over::MAX_BYTES as usize / 4)).nesting_limit(8);
        let message = serialize::read_message(message, options)?;
        let root: hand_over::Reader<'_> = message.get_root()?;
        let tag = Tag::new(root.get_tag()?.as_bytes())
            .ok_or_else(|| capnp::Error::failed("tag of a hand-over is none".into()))?;
        Ok(Self {
            ticket: root.get_ticket()?.to_vec(),
            peer: Peer::read(root.get_peer()?)?,
            tag,
            login: root.get_login()?.to_str()?.to_owned(),
            buffered: root.get_buffered()?.to_vec(),
            authenticate: root.get_state() & 1 != 0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peer::Tls;
    use types::SessionId;

    #[test]
    fn what_is_said_arrives() {
        let said = HandOver {
            ticket: vec![1; 64],
            peer: Peer {
                ip: "192.0.2.7".parse().unwrap(),
                port: 5,
                local_ip: "::1".parse().ok(),
                session: SessionId::from_bytes([7; 8]),
                tls: Tls::default(),
                listener: "public/imaps".to_owned(),
                agent: "Bird 1.0".to_owned(),
            },
            tag: Tag::new(b"a1").unwrap(),
            login: "alice@example.org".to_owned(),
            buffered: b"a2 SELECT INBOX\r\n".to_vec(),
            authenticate: true,
        };
        let heard = HandOver::decode(&said.encode()).unwrap();
        assert_eq!(format!("{heard:?}"), format!("{said:?}"));
        assert!(HandOver::decode(b"").is_err());
        let mut broken = said.encode();
        broken.truncate(40);
        assert!(HandOver::decode(&broken).is_err());
    }
}
