//! An account in memory that answers as the real one does, a few rows at a time.

use imap::{
    Flag, Flags, MailboxName, NumberSet, SpecialUse, StoreHow, System,
    session::{
        Answer, Appended, Copied, MailboxInfo, MailboxOutcome, Meta, Question, Refused, Row, Small,
    },
};
use message::Job;
use std::collections::BTreeMap;

#[derive(Clone)]
pub(super) struct Stored {
    pub(super) flags: Flags,
    pub(super) modseq: u64,
    pub(super) content: Vec<u8>,
    pub(super) expunged: bool,
}

#[derive(Default)]
pub(super) struct Folder {
    pub(super) messages: BTreeMap<u32, Stored>,
    next: u32,
    /// It is another mailbox of a name that was used before.
    pub(super) remade: u32,
    pub(super) role: Option<SpecialUse>,
}

/// An account that answers as the real one does, a few rows at a time.
#[derive(Default)]
pub(super) struct Account {
    pub(super) folders: BTreeMap<MailboxName, Folder>,
    subscriptions: std::collections::BTreeSet<MailboxName>,
    pub(super) modseq: u64,
    pub(super) open: Option<MailboxName>,
    pub(super) appending: Option<(MailboxName, Flags, Vec<u8>)>,
    pub(super) away: bool,
    pub(super) full: bool,
    /// Somebody deleted the mailbox that is open.
    pub(super) gone: bool,
    pub(super) asked: Vec<Question>,
}

const PAGE: usize = 3;

impl Account {
    fn folder(&mut self) -> &mut Folder {
        let name = self.open.clone().expect("open");
        self.folders.get_mut(&name).expect("there")
    }

    pub(super) fn deliver(&mut self, name: &str, flags: &str, content: &[u8]) -> u32 {
        self.modseq += 1;
        let modseq = self.modseq;
        let folder = self.folders.entry(MailboxName::new(name).unwrap()).or_default();
        folder.next = folder.next.max(1);
        let uid = folder.next;
        folder.next += 1;
        let flags = flags.split_whitespace().filter_map(|f| Flag::new(f.as_bytes())).collect();
        let content = content.to_vec();
        folder.messages.insert(uid, Stored { flags, modseq, content, expunged: false });
        uid
    }

    pub(super) fn flag(&mut self, name: &str, uid: u32, flag: &str) {
        self.modseq += 1;
        let modseq = self.modseq;
        let folder = self.folders.get_mut(&MailboxName::new(name).unwrap()).unwrap();
        let message = folder.messages.get_mut(&uid).unwrap();
        message.flags.insert(Flag::new(flag.as_bytes()).unwrap());
        message.modseq = modseq;
    }

    pub(super) fn remove(&mut self, name: &str, uid: u32) {
        self.modseq += 1;
        let modseq = self.modseq;
        let folder = self.folders.get_mut(&MailboxName::new(name).unwrap()).unwrap();
        let message = folder.messages.get_mut(&uid).unwrap();
        message.expunged = true;
        message.modseq = modseq;
    }

    fn info(name: &MailboxName, folder: &Folder) -> MailboxInfo {
        let live = || folder.messages.values().filter(|m| !m.expunged);
        let unseen = |m: &&Stored| !m.flags.has(System::Seen);
        let mut flags = Flags::default();
        live().for_each(|m| flags.add_all(&m.flags));
        MailboxInfo {
            name: name.clone(),
            role: folder.role,
            uid_validity: 7 + folder.remade,
            uid_next: folder.next.max(1),
            total: live().count() as u32,
            deleted: live().filter(|m| m.flags.has(System::Deleted)).count() as u32,
            unseen: live().filter(unseen).count() as u32,
            bytes: live().map(|m| m.content.len() as u64).sum(),
            flags,
            first_unseen: folder
                .messages
                .iter()
                .find(|(_, m)| !m.expunged && unseen(m))
                .map(|(uid, _)| *uid),
        }
    }

    fn row(uid: u32, message: &Stored) -> Row {
        Row {
            uid,
            flags: message.flags.clone(),
            modseq: message.modseq,
            size: message.content.len() as u64,
            received: 86_400 * i64::from(uid),
            expunged: message.expunged,
        }
    }

    pub(super) fn bytes(&mut self, uid: u32, from: u64, to: u64) -> Vec<u8> {
        self.folder().messages[&uid].content[from as usize..to as usize].to_vec()
    }

    pub(super) fn answer(&mut self, question: Question) -> Answer {
        self.asked.push(question.clone());
        if self.away {
            return Answer::Unavailable;
        }
        match question {
            Question::Mailboxes => Answer::Mailboxes {
                list: self.folders.iter().map(|(name, f)| Self::info(name, f)).collect(),
                subscriptions: self.subscriptions.iter().cloned().collect(),
            },
            Question::Create(name, role) => {
                if self.folders.contains_key(&name) {
                    return Answer::Mailbox(MailboxOutcome::Exists);
                }
                self.folders.insert(name, Folder { role, next: 1, ..Folder::default() });
                Answer::Mailbox(MailboxOutcome::Done)
            }
            Question::Delete(name) => Answer::Mailbox(match self.folders.remove(&name) {
                Some(_) => MailboxOutcome::Done,
                None => MailboxOutcome::Missing,
            }),
            Question::Rename(from, to) => Answer::Mailbox(match self.folders.remove(&from) {
                Some(folder) => {
                    self.folders.insert(to, folder);
                    MailboxOutcome::Done
                }
                None => MailboxOutcome::Missing,
            }),
            Question::Subscribe(name, on) => {
                if on {
                    self.subscriptions.insert(name);
                } else {
                    self.subscriptions.remove(&name);
                }
                Answer::Mailbox(MailboxOutcome::Done)
            }
            Question::Open { name, .. } => {
                self.open = None;
                let info = self.folders.get(&name).map(|f| Box::new(Self::info(&name, f)));
                if info.is_some() {
                    self.open = Some(name);
                }
                Answer::Opened(info)
            }
            Question::Release => {
                self.open = None;
                Answer::Done
            }
            Question::Rows { .. } if self.gone => {
                Answer::Rows { rows: Vec::new(), more: false, modseq: self.modseq }
            }
            Question::Changes { .. } if self.gone => {
                Answer::Changes { rows: Vec::new(), more: false, modseq: self.modseq, gone: true }
            }
            Question::Store { .. } if self.gone => Answer::Stored(Ok(0)),
            Question::Rows { from, to } => {
                let modseq = self.modseq;
                let all = self.folder().messages.range(from..=to).filter(|(_, m)| !m.expunged);
                let mut rows: Vec<Row> =
                    all.take(PAGE + 1).map(|(u, m)| Self::row(*u, m)).collect();
                let more = rows.len() > PAGE;
                rows.truncate(PAGE);
                Answer::Rows { rows, more, modseq }
            }
            Question::Changes { since } => {
                let modseq = self.modseq;
                let mut rows: Vec<Row> = self
                    .folder()
                    .messages
                    .iter()
                    .filter(|(_, m)| m.modseq > since)
                    .map(|(u, m)| Self::row(*u, m))
                    .collect();
                rows.sort_by_key(|row| row.modseq);
                // A page never ends inside a modseq.
                let mut end = rows.len().min(PAGE);
                while end < rows.len() && rows[end].modseq == rows[end - 1].modseq {
                    end += 1;
                }
                let more = end < rows.len();
                rows.truncate(end);
                Answer::Changes { rows, more, modseq, gone: false }
            }
            Question::Meta { uids, .. } => {
                let here: Vec<u32> = uids.iter().collect();
                let folder = self.folder();
                let items = here
                    .iter()
                    .take(2)
                    .filter_map(|uid| {
                        let message = folder.messages.get(uid)?;
                        let mut job = Job::new(message::Limits::default());
                        job.push(&message.content);
                        let facts = job.finish();
                        Some(Meta {
                            uid: *uid,
                            envelope: facts.envelope.encode(),
                            structure: facts.structure.encode(),
                        })
                    })
                    .collect();
                Answer::Meta { items, next: here.get(2).copied() }
            }
            Question::Small { uids, most } => {
                let here: Vec<u32> = uids.iter().collect();
                let folder = self.folder();
                let items = here
                    .iter()
                    .take(2)
                    .filter_map(|uid| {
                        let content = &folder.messages.get(uid)?.content;
                        let data = (content.len() <= most as usize).then(|| content.clone());
                        Some(Small { uid: *uid, size: content.len() as u64, data })
                    })
                    .collect();
                Answer::Small { items, next: here.get(2).copied() }
            }
            Question::Content { uid, from, to } => Answer::Content(Some(self.bytes(uid, from, to))),
            Question::Store { .. } if self.full => Answer::Full,
            Question::Store { uids, how, flags } => {
                let modseq = self.modseq + 1;
                let mut changed = false;
                for uid in uids.iter() {
                    let message = self.folder().messages.get_mut(&uid);
                    let Some(message) = message.filter(|m| !m.expunged) else { continue };
                    let before = message.flags.clone();
                    match how {
                        StoreHow::Replace => message.flags = flags.clone(),
                        StoreHow::Add => message.flags.add_all(&flags),
                        StoreHow::Remove => message.flags.remove_all(&flags),
                    }
                    if before != message.flags {
                        message.modseq = modseq;
                        changed = true;
                    }
                }
                self.modseq += u64::from(changed);
                Answer::Stored(Ok(if changed { modseq } else { 0 }))
            }
            Question::Copy { uids, to, and_remove } => {
                if !self.folders.contains_key(&to) {
                    return Answer::Copied(Err(Refused::Missing));
                }
                let source = self.open.clone().unwrap();
                let (mut from, mut target) = (NumberSet::new(), NumberSet::new());
                let live: Vec<u32> =
                    uids.iter().filter(|uid| !self.folder().messages[uid].expunged).collect();
                for uid in live {
                    from.push(uid);
                    let content = self.folder().messages[&uid].content.clone();
                    target.push(self.deliver(to.as_str(), "", &content));
                    if and_remove {
                        self.remove(source.as_str(), uid);
                    }
                }
                Answer::Copied(Ok(Copied {
                    uid_validity: 9,
                    from,
                    to: target,
                    modseq: self.modseq,
                }))
            }
            Question::Expunge(uids) => {
                let name = self.open.clone().unwrap();
                for uid in uids.iter() {
                    let message = &self.folder().messages[&uid];
                    if !message.expunged && message.flags.has(System::Deleted) {
                        self.remove(name.as_str(), uid);
                    }
                }
                Answer::Expunged(Ok(self.modseq))
            }
            Question::SearchText { needle, uids, .. } => {
                let needle = needle.to_lowercase();
                let folder = self.folder();
                Answer::Found(
                    uids.iter()
                        .filter(|uid| {
                            let Some(message) = folder.messages.get(uid) else { return false };
                            let content = &message.content;
                            String::from_utf8_lossy(content).to_lowercase().contains(&needle)
                        })
                        .collect(),
                )
            }
            Question::Append { mailbox, flags, .. } => {
                if !self.folders.contains_key(&mailbox) {
                    return Answer::AppendStarted(Err(Refused::Missing));
                }
                self.appending = Some((mailbox, flags, Vec::new()));
                Answer::AppendStarted(Ok(()))
            }
            Question::Commit => {
                let (mailbox, flags, content) = self.appending.take().expect("begun");
                let uid = self.deliver(mailbox.as_str(), &flags.to_string(), &content);
                Answer::Appended(Ok(Appended { uid_validity: 7, uid, modseq: self.modseq }))
            }
        }
    }
}
