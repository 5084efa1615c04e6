//! Random work against a simple model, and a power cut at every sync of it.
//!
//! After each step the account is compared with the model. Then the disk's log is cut before every
//! sync, what may be left is opened, verified and compared: it must be the state after the last step
//! that was acknowledged, or, if one had begun, the state after that; nothing between, nothing lost.
//! The same is done with a disk that lies about one kind of sync: if that is not found, the test is
//! worth nothing.

use super::world::{
    Seeded, World, body, bytes_of, message, now, open_image, parsed, reading, small,
};
use crate::store::{
    FlagChange, Flags, Keyword, MailboxId, NewMessage, Recipient, SendLimits, StoreError,
    Submission, Target, Uid, UidSet, index::Index, outbox, read, verify,
};
use std::{collections::BTreeMap, time::Duration};
use storage::{Kind, Lie};
use types::{Clock as _, SubmissionId};

/// How long repeats of a submission are recognised: longer than the test plays.
const SAID: Duration = Duration::from_secs(10 * 365 * 86_400);

/// Length and checksum of a content: what is compared of it.
type Print = (usize, u32);

fn print(bytes: &[u8]) -> Print {
    (bytes.len(), crc32fast::hash(bytes))
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Mail {
    content: Print,
    flags: Flags,
    keywords: Vec<Keyword>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Folder {
    name: String,
    uidnext: Uid,
    mails: BTreeMap<Uid, Mail>,
}

/// All that a client could see.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct State {
    folders: BTreeMap<MailboxId, Folder>,
    outbox: Vec<(SubmissionId, Print)>,
    /// By what repeats of submissions are recognised.
    said: Vec<([u8; 32], SubmissionId)>,
}

/// The state of an account, read through the store.
fn state(index: &mut Index) -> Result<State, StoreError> {
    let mut all = State::default();
    for info in reading(index, |v| read::mailboxes(v.connection))? {
        let rows = reading(index, |v| read::rows(v, info.id, &UidSet::all(), 1))?;
        let mut folder = Folder { name: info.name, uidnext: info.uidnext, mails: BTreeMap::new() };
        for row in rows.rows {
            let content = print(&bytes_of(index, info.id, row.uid)?);
            let mut keywords: Vec<Keyword> = row
                .keywords
                .numbers()
                .filter_map(|n| {
                    rows.keywords.iter().find(|(bit, _)| *bit == n).map(|(_, k)| k.clone())
                })
                .collect();
            keywords.sort();
            folder.mails.insert(row.uid, Mail { content, flags: row.flags, keywords });
        }
        all.folders.insert(info.id, folder);
    }
    for entry in reading(index, |v| outbox::list(v.connection, None))? {
        let bytes = reading(index, |v| v.files.read(v.connection, entry.content.id, 0, u32::MAX))?;
        all.outbox.push((entry.id, print(&bytes)));
    }
    all.said = reading(index, |v| {
        let said = "SELECT digest, submission_id FROM submission_repeat ORDER BY digest";
        let mut query = v.connection.prepare(said)?;
        let rows = query.query_map([], |r| Ok((r.get(0)?, SubmissionId::from_bytes(r.get(1)?))))?;
        Ok(rows.collect::<Result<_, _>>()?)
    })?;
    Ok(all)
}

/// Where two states part, in a line each.
fn differences(found: &State, wanted: &State) -> Vec<String> {
    let mut all = Vec::new();
    for id in found.folders.keys().chain(wanted.folders.keys()) {
        let (Some(a), Some(b)) = (found.folders.get(id), wanted.folders.get(id)) else {
            all.push(format!("{id:?} is on one side alone"));
            continue;
        };
        if (&a.name, a.uidnext) != (&b.name, b.uidnext) {
            all.push(format!("{id:?}: {:?} {} / {:?} {}", a.name, a.uidnext, b.name, b.uidnext));
        }
        for uid in a.mails.keys().chain(b.mails.keys()) {
            if a.mails.get(uid) != b.mails.get(uid) {
                all.push(format!("{id:?} {uid}: {:?} / {:?}", a.mails.get(uid), b.mails.get(uid)));
            }
        }
    }
    if found.outbox != wanted.outbox {
        all.push(format!("outbox {:?} / {:?}", found.outbox, wanted.outbox));
    }
    if found.said != wanted.said {
        all.push(format!("said {:?} / {:?}", found.said, wanted.said));
    }
    all.truncate(5);
    all
}

struct Play<'a> {
    world: &'a World,
    index: Option<Index>,
    random: Seeded,
    model: State,
    serial: u8,
}

impl Play<'_> {
    fn index(&mut self) -> &mut Index {
        self.index.as_mut().unwrap()
    }

    fn pick_folder(&self) -> MailboxId {
        let ids: Vec<MailboxId> = self.model.folders.keys().copied().collect();
        ids[self.random.below(ids.len())]
    }

    fn pick_uids(&self, id: MailboxId) -> Vec<Uid> {
        let uids: Vec<Uid> = self.model.folders[&id].mails.keys().copied().collect();
        uids.into_iter().filter(|_| self.random.below(3) == 0).take(12).collect()
    }

    fn new_message(&self, id: MailboxId) -> (NewMessage, Mail) {
        let at = now(self.world);
        let len = match self.random.below(24) {
            0 => 150_000,
            1 => 280_000,
            _ => 200 + self.random.below(4000),
        };
        let content = body(&self.random, len);
        let mut new = if self.random.below(3) == 0 {
            let id = format!("{}@x", self.random.below(20));
            let before = format!("{}@x", self.random.below(20));
            NewMessage {
                content: crate::store::Content::Bytes(content.clone()),
                ..parsed(&id, "re: s", &[&before], at)
            }
        } else {
            message(Target::Mailbox(id), content.clone(), at)
        };
        new.target = Target::Mailbox(id);
        if self.random.below(5) == 0 {
            new.flags = Flags::JUNK;
        }
        if self.random.below(4) == 0 {
            new.keywords = vec![format!("k{}", self.random.below(6)).parse().unwrap()];
        }
        let mail =
            Mail { content: print(&content), flags: new.flags, keywords: new.keywords.clone() };
        (new, mail)
    }

    /// One step on both sides. Steps that are not seen by a client change the store alone.
    fn step(&mut self) {
        match self.random.below(20) {
            0..=6 => {
                let count = [1, 1, 1, 5, 12][self.random.below(5)];
                let mut group = Vec::new();
                for _ in 0..count {
                    let id = self.pick_folder();
                    let (new, mail) = self.new_message(id);
                    let folder = self.model.folders.get_mut(&id).unwrap();
                    folder.mails.insert(folder.uidnext, mail);
                    folder.uidnext += 1;
                    group.push(new);
                }
                for outcome in self.index().deliver(&group) {
                    outcome.unwrap();
                }
            }
            7..=8 => self.change_flags(),
            9 => self.copy(),
            10..=11 => self.move_some(),
            12..=13 => {
                let id = self.pick_folder();
                let uids = self.pick_uids(id);
                let gone =
                    self.index().expunge(id, &UidSet::from_uids(uids.iter().copied()), false);
                assert_eq!(gone.unwrap(), uids);
                let folder = self.model.folders.get_mut(&id).unwrap();
                folder.mails.retain(|uid, _| !uids.contains(uid));
            }
            14 => self.change_folders(),
            15 => self.submit(),
            16 => {
                self.index().erase().unwrap();
                while self.index().compact().unwrap() {}
            }
            17 => {
                self.index().drain().unwrap();
            }
            18 => {
                self.index().purge().unwrap();
                self.index().checkpoint().unwrap();
            }
            _ => {
                self.index = None;
                self.index = Some(self.world.open(small()).unwrap());
            }
        }
        let index = self.index();
        if index.staged_bytes > index.tuning.drain_bytes {
            index.drain().unwrap();
        }
    }

    fn change_flags(&mut self) {
        let id = self.pick_folder();
        let uids = self.pick_uids(id);
        let change =
            [FlagChange::Add, FlagChange::Remove, FlagChange::Replace][self.random.below(3)];
        let flags = Flags::from_bits(u32::try_from(self.random.below(256)).unwrap());
        let keyword: Keyword = format!("k{}", self.random.below(6)).parse().unwrap();
        let names = if self.random.below(2) == 0 { vec![keyword] } else { Vec::new() };
        let set = UidSet::from_uids(uids.iter().copied());
        let outcome = self.index().store_flags(id, &set, change, flags, &names, None).unwrap();
        assert_eq!(outcome.rows.len(), uids.len());
        let folder = self.model.folders.get_mut(&id).unwrap();
        for uid in uids {
            let mail = folder.mails.get_mut(&uid).unwrap();
            match change {
                FlagChange::Add => {
                    mail.flags = mail.flags.with(flags);
                    mail.keywords.extend(names.iter().cloned());
                    mail.keywords.sort();
                    mail.keywords.dedup();
                }
                FlagChange::Remove => {
                    mail.flags = mail.flags.without(flags);
                    mail.keywords.retain(|k| !names.contains(k));
                }
                FlagChange::Replace => {
                    mail.flags = flags;
                    mail.keywords.clone_from(&names);
                }
            }
        }
    }

    fn copy(&mut self) {
        let (from, to) = (self.pick_folder(), self.pick_folder());
        let uids = self.pick_uids(from);
        let set = UidSet::from_uids(uids.iter().copied());
        let outcome = self.index().copy(from, &set, to, None).unwrap();
        for (uid, (source, target)) in uids.iter().zip(outcome.uids) {
            let mail = self.model.folders[&from].mails[uid].clone();
            let folder = self.model.folders.get_mut(&to).unwrap();
            assert_eq!((source, target), (*uid, folder.uidnext));
            folder.mails.insert(folder.uidnext, mail);
            folder.uidnext += 1;
        }
    }

    fn move_some(&mut self) {
        let (from, to) = (self.pick_folder(), self.pick_folder());
        let uids = self.pick_uids(from);
        let set = UidSet::from_uids(uids.iter().copied());
        self.index().move_messages(from, &set, to, None).unwrap();
        for uid in uids {
            let mail = self.model.folders.get_mut(&from).unwrap().mails.remove(&uid).unwrap();
            let folder = self.model.folders.get_mut(&to).unwrap();
            folder.mails.insert(folder.uidnext, mail);
            folder.uidnext += 1;
        }
    }

    fn change_folders(&mut self) {
        let id = self.pick_folder();
        self.serial += 1;
        let name = format!("made-{}", self.serial);
        if self.random.below(3) == 0 && self.model.folders[&id].name.starts_with("made") {
            self.index().delete_mailbox(id).unwrap();
            self.model.folders.remove(&id);
        } else if self.random.below(2) == 0 && self.model.folders[&id].name != "Inbox" {
            self.index().rename_mailbox(id, &name).unwrap();
            self.model.folders.get_mut(&id).unwrap().name = name;
        } else {
            let made = self.index().create_mailbox(&name, None).unwrap();
            let folder = Folder { name, uidnext: 1, mails: BTreeMap::new() };
            self.model.folders.insert(made.id, folder);
        }
    }

    fn submit(&mut self) {
        if let Some((first, _)) = self.model.outbox.first().cloned()
            && self.random.below(2) == 0
        {
            assert_eq!(self.index().outbox_done(&[first]).unwrap(), 1);
            self.model.outbox.remove(0);
            return;
        }
        let id = self.pick_folder();
        let (message, mail) = self.new_message(id);
        if mail.content.0 > 200_000 {
            // The comparison reads an outbox entry in one piece.
            return;
        }
        self.serial += 1;
        let submission = Submission {
            id: SubmissionId::from_bytes([self.serial; 16]),
            said: Some(([self.serial; 32], now(self.world).plus(SAID))),
            message,
            keep_copy: true,
            envelope: vec![1],
            recipients: vec![Recipient {
                localpart: "x".into(),
                domain: "b.example".into(),
                org_domain: "b.example".into(),
            }],
            release: None,
            limits: SendLimits::default(),
        };
        let id_sent = submission.id;
        self.index().submit(submission).unwrap();
        self.model.outbox.push((id_sent, mail.content));
        self.model.said.push(([self.serial; 32], id_sent));
        let folder = self.model.folders.get_mut(&id).unwrap();
        folder.mails.insert(folder.uidnext, mail);
        folder.uidnext += 1;
    }
}

/// Plays `steps` random steps; gives the world and the state after each.
fn play(seed: u64, steps: usize, lie: Option<Lie>) -> (World, Vec<State>) {
    let world = World::new(seed);
    let mut index = world.create(small());
    let model = state(&mut index).unwrap();
    if let Some(lie) = lie {
        world.disk.lie(lie);
    }
    let random = Seeded::new(seed);
    let mut play = Play { world: &world, index: Some(index), random, model, serial: 0 };
    let mut states = vec![play.model.clone()];
    world.disk.mark(0);
    for n in 1..=steps {
        let n = u64::try_from(n).unwrap();
        world.disk.mark(2 * n - 1);
        play.step();
        world.disk.mark(2 * n);
        states.push(play.model.clone());
        if n.is_multiple_of(8) {
            let apart = differences(&state(play.index()).unwrap(), &play.model);
            assert_eq!(apart, Vec::<String>::new(), "seed {seed} step {n}");
        }
    }
    let findings = verify::all(play.index(), false).unwrap();
    assert_eq!(findings, [], "seed {seed}");
    drop(play);
    assert!(lie.is_some() || world.alarms.lock().unwrap().is_empty());
    (world, states)
}

/// What is wrong with an image, if anything.
fn judge(world: &World, image: &storage::Image, mark: u64, states: &[State]) -> Option<String> {
    let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    image.write_to(folder.path()).unwrap();
    let mut index = match open_image(folder.path(), world.clock.now()) {
        Ok(index) => index,
        Err(error) => return Some(format!("does not open: {error}")),
    };
    if let Some(why) = &index.damaged {
        return Some(format!("damaged: {why}"));
    }
    let found = match state(&mut index) {
        Ok(found) => found,
        Err(error) => return Some(format!("does not read: {error}")),
    };
    // Mark 2n: step n was acknowledged. 2n-1: it had begun.
    let done = usize::try_from(mark / 2).unwrap();
    let begun = usize::try_from(mark.div_ceil(2)).unwrap();
    if found != states[done] && found != states[begun] {
        return Some(format!("not as acknowledged: {:?}", differences(&found, &states[done])));
    }
    match verify::all(&mut index, false) {
        Ok(findings) if findings.is_empty() => None,
        Ok(findings) => Some(format!("{findings:?}")),
        Err(error) => Some(format!("cannot be verified: {error}")),
    }
}

/// Cuts before syncs; `every` n-th of them. Says how many cuts there were and what was wrong.
fn cut(world: &World, states: &[State], every: usize) -> (usize, Vec<String>) {
    let mut replay = world.disk.replay();
    let points = replay.sync_points();
    let (mut cuts, mut wrong) = (0, Vec::new());
    for (n, point) in points.into_iter().enumerate() {
        replay.advance_to(point);
        let Some(&mark) = replay.marks().last() else { continue };
        if !n.is_multiple_of(every) {
            continue;
        }
        cuts += 1;
        let seed = n as u64;
        if let Some(why) = judge(world, &replay.image(seed), mark, states) {
            wrong.push(format!("cut {point} seed {seed} mark {mark}: {why}"));
        }
    }
    (cuts, wrong)
}

fn is_nightly() -> bool {
    std::env::var_os("MOX_NIGHTLY").is_some()
}

/// Another beginning of the seeds, to try others than those of every day.
fn first_seed() -> u64 {
    std::env::var("MOX_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(0)
}

#[test]
fn every_cut_leaves_what_was_acknowledged() {
    let (seeds, steps) = if is_nightly() { (20, 250) } else { (2, 120) };
    for seed in first_seed()..first_seed() + seeds {
        let (world, states) = play(seed, steps, None);
        let (cuts, wrong) = cut(&world, &states, 1);
        assert!(cuts > steps, "{cuts} cuts");
        assert_eq!(wrong, Vec::<String>::new(), "seed {seed}");
    }
}

#[test]
fn the_model_agrees_over_a_long_run() {
    let (seeds, steps) = if is_nightly() { (10, 2000) } else { (1, 400) };
    for seed in first_seed() + 100..first_seed() + 100 + seeds {
        play(seed, steps, None);
    }
}

/// A log that is not synced is what `synchronous=NORMAL` makes of a commit.
#[test]
fn a_log_that_is_not_synced_is_found() {
    let (world, states) = play(201, 60, Some(Kind::Journal));
    let (cuts, wrong) = cut(&world, &states, 1);
    assert!(wrong.len() * 2 > cuts, "{} of {cuts}", wrong.len());
}

#[test]
fn a_segment_that_is_not_synced_is_found() {
    let (world, states) = play(202, 60, Some(Kind::Segment));
    let (cuts, wrong) = cut(&world, &states, 2);
    assert!(wrong.len() * 2 > cuts, "{} of {cuts}", wrong.len());
}

#[test]
fn a_folder_that_is_not_synced_is_found() {
    let (world, states) = play(203, 60, Some(Kind::Folder));
    let (cuts, wrong) = cut(&world, &states, 2);
    assert!(wrong.len() * 3 > cuts, "{} of {cuts}", wrong.len());
}
