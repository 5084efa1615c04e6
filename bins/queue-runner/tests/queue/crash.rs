//! A power cut at every sync: what accountd was told is done is in the queue with its content, and
//! nobody gets it twice under two queue ids. With a disk that lies about the spool this must be
//! found out, or it proves nothing.

use crate::world::{Mail, START, Stored, World, local, mail};
use std::{collections::BTreeMap, rc::Rc, sync::Arc, time::Duration};
use storage::{Forgetful, Lie, RealDisk};

fn mails() -> Vec<Mail> {
    (1..=2)
        .map(|n| {
            let to = [format!("a{n}@local.test"), format!("b{n}@local.test")];
            let mut mail = mail(n, "", &[&to[0], &to[1]]);
            // Over several sectors, or nothing could be torn.
            mail.content.extend(vec![b'a' + n; 3_000 * usize::from(n)]);
            mail
        })
        .collect()
}

/// What is wrong after a cut, in words.
async fn judge(
    folder: &std::path::Path,
    done: &std::collections::BTreeSet<[u8; 16]>,
    before: Vec<Stored>,
    patience: Duration,
) -> Result<(), String> {
    let seen = World::new_seen();
    for mail in mails() {
        if !done.contains(&mail.id) {
            seen.submit(mail);
        }
    }
    // accountd's own disk forgot nothing.
    *seen.stored.borrow_mut() = before;
    let at = START.plus(Duration::from_secs(3_600));
    let world = World::over(folder, Arc::new(RealDisk), Rc::clone(&seen), at).await;
    let wanted: BTreeMap<String, Vec<u8>> = mails()
        .into_iter()
        .flat_map(|mail| mail.to.into_iter().map(move |to| (to, mail.content.clone())))
        .collect();
    let all = async |w: &World| w.seen.stored.borrow().len() >= wanted.len();
    let came = world.becomes(all, patience).await;
    if !came {
        return Err(format!("{} of {} came", seen.stored.borrow().len(), wanted.len()));
    }
    world.rests_with(0).await;
    for (to, content) in &wanted {
        let got = world.stored_for(to);
        if got.len() != 1 {
            return Err(format!("{to} got {}", got.len()));
        }
        if got[0].content != *content {
            return Err(format!("{to} got another content"));
        }
    }
    Ok(())
}

/// Runs everything on a forgetful disk, then cuts; the first thing that is wrong.
async fn play(lie: Option<Lie>, patience: Duration) -> (usize, Result<(), String>) {
    let folder = tempfile::tempdir().unwrap();
    let disk = Forgetful::over(folder.path()).unwrap();
    if let Some(lie) = lie {
        disk.lie(lie);
    }
    let seen = World::new_seen();
    *seen.disk.borrow_mut() = Some(disk.clone());
    {
        let disk = Arc::new(disk.clone());
        let world = World::over(folder.path(), disk, Rc::clone(&seen), START).await;
        for (n, mail) in mails().into_iter().enumerate() {
            world.seen.submit(mail);
            world.until(async |w| w.seen.stored.borrow().len() == (n + 1) * 2).await;
        }
        world.rests_with(0).await;
    }
    let mut cuts = 0;
    let mut replay = disk.replay();
    for point in replay.sync_points() {
        replay.advance_to(point);
        let (done, stored) = seen.at(replay.marks());
        for seed in 0..3 {
            let image = tempfile::tempdir().unwrap();
            replay.image(seed).write_to(image.path()).unwrap();
            cuts += 1;
            let judged = judge(image.path(), &done, stored.clone(), patience).await;
            if let Err(why) = judged {
                return (cuts, Err(format!("cut {point}, seed {seed}: {why}")));
            }
        }
    }
    (cuts, Ok(()))
}

#[tokio::test]
async fn nothing_is_lost_or_doubled_by_a_power_cut() {
    local(async {
        let (cuts, outcome) = play(None, Duration::from_secs(5)).await;
        outcome.unwrap();
        assert!(cuts > 30, "{cuts}");
    })
    .await;
}

#[tokio::test]
async fn a_spool_that_is_not_synced_is_found_out() {
    local(async {
        let (_, outcome) = play(Some(Lie::Segment), Duration::from_millis(500)).await;
        let why = outcome.unwrap_err();
        assert!(why.contains("came") || why.contains("another content"), "{why}");
    })
    .await;
}
