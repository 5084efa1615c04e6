//! Between generated types and ours: every value of a peer is read once, here, and checked.

use crate::{
    auth::{authority::Failure, live::Revoked, scram::Bindings},
    intake::spool::Crowded,
    peer::{Peer, Tls},
    store::{
        Flags, Keyword, KeywordBits, KeywordNames, MailboxInfo, MessageRow, Role, Uid, UidSet,
    },
};
use ipc::{
    capnp,
    schema::{account_capnp as account, auth_capnp as auth, types_capnp as wire},
};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use types::SessionId;

/// Octets of a listener's name.
const MAX_LISTENER: usize = 256;
/// Characters that are kept of what a client called itself.
const MAX_AGENT: usize = 255;
/// Octets of a channel binding.
const MAX_BINDING: usize = 64;
/// UID ranges in one argument.
const MAX_RANGES: u32 = 65_536;

/// A peer broke its contract: its call fails, and the log says why.
pub(super) fn broken(what: &str) -> capnp::Error {
    capnp::Error::failed(what.to_owned())
}

/// There is no room now: whoever asks may ask again.
pub(super) fn later(why: Crowded) -> capnp::Error {
    capnp::Error::overloaded(why.to_string())
}

/// The session's right is gone.
pub(super) fn revoked(why: Revoked) -> capnp::Error {
    capnp::Error::failed(why.to_string())
}

pub(super) fn ip(octets: &[u8]) -> Result<IpAddr, capnp::Error> {
    if let Ok(v4) = <[u8; 4]>::try_from(octets) {
        return Ok(IpAddr::V4(Ipv4Addr::from(v4)));
    }
    let v6 = <[u8; 16]>::try_from(octets).map_err(|_| broken("an address of 4 or 16 octets"))?;
    Ok(IpAddr::V6(Ipv6Addr::from(v6)).to_canonical())
}

pub(super) fn peer(reader: wire::peer::Reader<'_>) -> Result<Peer, capnp::Error> {
    let local = reader.get_local_ip()?;
    let listener = reader.get_listener()?.to_str()?;
    if listener.len() > MAX_LISTENER {
        return Err(broken("a listener name that is too long"));
    }
    let agent = reader.get_agent()?.to_str()?;
    Ok(Peer {
        ip: ip(reader.get_ip()?)?,
        local_ip: if local.is_empty() { None } else { Some(ip(local)?) },
        session: SessionId::try_from(reader.get_session()?)
            .map_err(|_| broken("a session of 8 octets"))?,
        tls: tls(reader.get_tls()?)?,
        listener: listener.to_owned(),
        agent: agent.chars().filter(|c| !c.is_control()).take(MAX_AGENT).collect(),
    })
}

fn tls(reader: wire::tls_facts::Reader<'_>) -> Result<Option<Tls>, capnp::Error> {
    if reader.get_version() == 0 {
        return Ok(None);
    }
    let binding = |octets: &[u8]| {
        if octets.len() > MAX_BINDING {
            Err(broken("a channel binding that is too long"))
        } else {
            Ok(octets.to_vec())
        }
    };
    let client_key = match reader.get_client_key()? {
        [] => None,
        octets => {
            Some(<[u8; 32]>::try_from(octets).map_err(|_| broken("a fingerprint of 32 octets"))?)
        }
    };
    let server_name = reader.get_server_name()?.to_str()?;
    Ok(Some(Tls {
        version: reader.get_version(),
        cipher_suite: reader.get_cipher_suite(),
        bindings: Bindings {
            exporter: binding(reader.get_exporter()?)?,
            end_point: binding(reader.get_end_point()?)?,
        },
        client_key,
        server_name: server_name.chars().take(MAX_LISTENER).collect(),
    }))
}

impl From<&Failure> for auth::Failure {
    fn from(failure: &Failure) -> Self {
        match failure {
            Failure::BadCredentials => auth::Failure::BadCredentials,
            Failure::BadMessage => auth::Failure::BadMessage,
            Failure::UnknownMechanism => auth::Failure::UnknownMechanism,
            Failure::TlsRequired => auth::Failure::TlsRequired,
            Failure::TooManyFailures => auth::Failure::TooManyFailures,
            Failure::Temporary => auth::Failure::Temporary,
            Failure::AccountDisabled(_) => auth::Failure::AccountDisabled,
            Failure::ChannelBinding => auth::Failure::ChannelBinding,
            Failure::Aborted => auth::Failure::Cancelled,
        }
    }
}

pub(super) fn role(role: account::Role) -> Option<Role> {
    match role {
        account::Role::None => None,
        account::Role::Archive => Some(Role::Archive),
        account::Role::Drafts => Some(Role::Drafts),
        account::Role::Junk => Some(Role::Junk),
        account::Role::Sent => Some(Role::Sent),
        account::Role::Trash => Some(Role::Trash),
    }
}

fn wire_role(role: Option<Role>) -> account::Role {
    match role {
        None => account::Role::None,
        Some(Role::Archive) => account::Role::Archive,
        Some(Role::Drafts) => account::Role::Drafts,
        Some(Role::Junk) => account::Role::Junk,
        Some(Role::Sent) => account::Role::Sent,
        Some(Role::Trash) => account::Role::Trash,
    }
}

/// Flags of a client; a keyword that is none is a broken contract, the session has checked it.
pub(super) fn flags(
    reader: account::flags::Reader<'_>,
) -> Result<(Flags, Vec<Keyword>), capnp::Error> {
    let mut keywords = Vec::new();
    for text in reader.get_keywords()? {
        keywords.push(text?.to_str()?.parse().map_err(|_| broken("no keyword"))?);
    }
    Ok((Flags::from_bits(reader.get_system()), keywords))
}

/// A set of UIDs; an empty list is all, where the method says so.
pub(super) fn uids(
    reader: capnp::struct_list::Reader<'_, account::uid_range::Owned>,
) -> Result<UidSet, capnp::Error> {
    if reader.len() > MAX_RANGES {
        return Err(broken("too many UID ranges"));
    }
    Ok(UidSet::from_ranges(reader.iter().map(|range| range.get_first()..=range.get_last())))
}

/// Runs of consecutive UIDs, in their order.
pub(super) fn ranges(uids: impl IntoIterator<Item = Uid>) -> Vec<(Uid, Uid)> {
    let mut out: Vec<(Uid, Uid)> = Vec::new();
    for uid in uids {
        match out.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(uid) => *last = uid,
            Some(_) | None => out.push((uid, uid)),
        }
    }
    out
}

/// The number of something as a list length.
pub(super) fn count(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}

pub(super) fn set_ranges(
    mut list: capnp::struct_list::Builder<'_, account::uid_range::Owned>,
    from: &[(Uid, Uid)],
) {
    for (at, (first, last)) in (0..).zip(from) {
        let mut range = list.reborrow().get(at);
        range.set_first(*first);
        range.set_last(*last);
    }
}

/// Names at the place of their number; a number out of use is an empty text.
fn keyword_texts(names: &KeywordNames) -> Vec<&str> {
    let len = names.iter().map(|(number, _)| usize::from(*number) + 1).max().unwrap_or(0);
    let mut out = vec![""; len];
    for (number, keyword) in names {
        if let Some(place) = out.get_mut(usize::from(*number)) {
            *place = keyword.as_str();
        }
    }
    out
}

pub(super) fn set_mailbox(
    mut to: account::mailbox_info::Builder<'_>,
    info: &MailboxInfo,
    keywords: &KeywordNames,
) -> Result<(), capnp::Error> {
    to.set_id(info.id.0.cast_unsigned());
    to.set_name(info.name.as_str());
    to.set_role(wire_role(info.role));
    to.set_uid_validity(info.uidvalidity);
    to.set_uid_next(info.uidnext);
    to.set_total(info.messages);
    to.set_deleted(info.deleted);
    to.set_unseen(info.unseen);
    to.set_bytes(info.bytes);
    to.set_modseq(info.modseq);
    to.set_expunged(info.expunged);
    to.set_oid(info.oid.as_bytes());
    to.set_keywords(keyword_texts(keywords).as_slice())?;
    Ok(())
}

/// Keyword bits, least significant first, without trailing zeros.
fn bits(keywords: KeywordBits) -> Vec<u8> {
    let mut out = Vec::new();
    for number in keywords.numbers() {
        let at = usize::from(number / 8);
        if out.len() <= at {
            out.resize(at + 1, 0u8);
        }
        out[at] |= 1 << (number % 8);
    }
    out
}

pub(super) fn set_row(mut to: account::row::Builder<'_>, row: &MessageRow) {
    to.set_uid(row.uid);
    to.set_system(row.flags.bits());
    if !row.keywords.is_empty() {
        to.set_keywords(&bits(row.keywords));
    }
    to.set_modseq(row.modseq);
    to.set_size(row.size);
    to.set_received_unix_ns(row.received.0);
    to.set_saved_unix_ns(row.saved.0);
    to.set_content_id(row.id.0.cast_unsigned());
    to.set_thread_id(row.thread.0.cast_unsigned());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_unmapped() {
        assert_eq!(ip(&[192, 0, 2, 1]).unwrap().to_string(), "192.0.2.1");
        let mapped = Ipv4Addr::new(192, 0, 2, 1).to_ipv6_mapped().octets();
        assert_eq!(ip(&mapped).unwrap().to_string(), "192.0.2.1");
        for bad in [&[][..], &[1, 2, 3], &[0; 17]] {
            assert!(ip(bad).is_err());
        }
    }

    #[test]
    fn runs_keep_their_order() {
        assert_eq!(ranges([1, 2, 3, 7, 5, 6]), [(1, 3), (7, 7), (5, 6)]);
        assert_eq!(ranges([u32::MAX]), [(u32::MAX, u32::MAX)]);
        assert!(ranges([]).is_empty());
    }

    #[test]
    fn keyword_bits_count_from_the_least_significant() {
        let all = KeywordBits::one(0).with(KeywordBits::one(9));
        assert_eq!(bits(all), [1, 2]);
        assert!(bits(KeywordBits::NONE).is_empty());
        let names = vec![(2, "b".parse().unwrap()), (0, "a".parse().unwrap())];
        assert_eq!(keyword_texts(&names), ["a", "", "b"]);
    }
}
