//! accountd's shapes turned into those of `common/imap`, and back.

use imap::{
    Flags, Keyword, MailboxName, NumberSet, SpecialUse,
    session::{MailboxInfo, Row},
};
use ipc::{
    capnp::{self, struct_list},
    schema::account_capnp::{self as schema, Role},
};

/// Bits of `Flags.system` that are keywords or flags of ours.
const SYSTEM: u32 = 0x3ff;

pub(super) fn role(role: Option<SpecialUse>) -> Role {
    match role {
        None => Role::None,
        Some(SpecialUse::Archive) => Role::Archive,
        Some(SpecialUse::Drafts) => Role::Drafts,
        Some(SpecialUse::Junk) => Role::Junk,
        Some(SpecialUse::Sent) => Role::Sent,
        Some(SpecialUse::Trash) => Role::Trash,
    }
}

fn special_use(role: Role) -> Option<SpecialUse> {
    match role {
        Role::None => None,
        Role::Archive => Some(SpecialUse::Archive),
        Role::Drafts => Some(SpecialUse::Drafts),
        Role::Junk => Some(SpecialUse::Junk),
        Role::Sent => Some(SpecialUse::Sent),
        Role::Trash => Some(SpecialUse::Trash),
    }
}

/// A name accountd gives. One that is none of ours shows as an error once, not as a dead session.
pub(super) fn name(text: capnp::text::Reader<'_>) -> Result<MailboxName, capnp::Error> {
    let text = text.to_str()?;
    MailboxName::new(text).map_err(|why| capnp::Error::failed(format!("a mailbox's name: {why}")))
}

/// By bit; None for what cannot be said in IMAP.
pub(super) fn keywords(
    info: schema::mailbox_info::Reader<'_>,
) -> Result<Vec<Option<Keyword>>, capnp::Error> {
    let list = info.get_keywords()?;
    list.iter().map(|keyword| Ok(Keyword::new(keyword?.as_bytes()))).collect()
}

pub(super) fn mailbox_info(
    info: schema::mailbox_info::Reader<'_>,
) -> Result<MailboxInfo, capnp::Error> {
    let first_unseen = info.get_first_unseen_uid();
    Ok(MailboxInfo {
        name: name(info.get_name()?)?,
        role: special_use(info.get_role()?),
        uid_validity: info.get_uid_validity(),
        uid_next: info.get_uid_next(),
        total: info.get_total(),
        deleted: info.get_deleted(),
        unseen: info.get_unseen(),
        bytes: info.get_bytes(),
        flags: Flags::new(0, keywords(info)?.into_iter().flatten()),
        first_unseen: (first_unseen != 0).then_some(first_unseen),
    })
}

/// A list of rows; None if one has a keyword that is newer than the list of keywords.
pub(super) fn rows(
    list: struct_list::Reader<'_, schema::row::Owned>,
    keywords: &[Option<Keyword>],
) -> Result<Option<Vec<Row>>, capnp::Error> {
    let mut rows = Vec::with_capacity(usize::try_from(list.len()).unwrap_or(0));
    for row in list {
        let bitmap = row.get_keywords()?;
        let mut named = Vec::new();
        for (at, &octet) in bitmap.iter().enumerate() {
            for bit in (0..8).filter(|bit| octet >> bit & 1 == 1) {
                match keywords.get(at * 8 + bit) {
                    Some(keyword) => named.extend(keyword.clone()),
                    None => return Ok(None),
                }
            }
        }
        rows.push(Row {
            uid: row.get_uid(),
            flags: Flags::new(row.get_system() & SYSTEM, named),
            modseq: row.get_modseq(),
            size: row.get_size(),
            received: row.get_received_unix_ns().div_euclid(1_000_000_000),
            expunged: row.get_expunged(),
        });
    }
    Ok(Some(rows))
}

pub(super) fn write_flags(flags: &Flags, mut to: schema::flags::Builder<'_>) {
    to.set_system(flags.bits());
    let count = u32::try_from(flags.keywords().len()).unwrap_or(0);
    let mut list = to.init_keywords(count);
    for (at, keyword) in (0..count).zip(flags.keywords()) {
        list.set(at, keyword.as_str());
    }
}

pub(super) fn write_uids(
    uids: &NumberSet,
    mut list: struct_list::Builder<'_, schema::uid_range::Owned>,
) {
    for (at, &(first, last)) in (0..list.len()).zip(uids.ranges()) {
        let mut range = list.reborrow().get(at);
        range.set_first(first);
        range.set_last(last);
    }
}

pub(super) fn read_uids(list: struct_list::Reader<'_, schema::uid_range::Owned>) -> NumberSet {
    NumberSet::from_ranges(list.iter().map(|range| (range.get_first(), range.get_last())))
}
