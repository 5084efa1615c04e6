//! The queue between an accountd and an outbound in small.

#![expect(clippy::unwrap_used, reason = "a fault in here is a failed test")]

mod crash;
mod world;

use daemon::Count;
use std::{cell::RefCell, rc::Rc, sync::Arc, time::Duration};
use storage::RealDisk;
use types::Clock as _;
use world::{FAULT, START, World, local, mail};

const ANN: &str = "ann@local.test";
const BOB: &str = "bob@remote.test";
const EVE: &str = "eve@remote.test";

#[tokio::test]
async fn is_taken_once_though_answers_are_lost() {
    local(async {
        let (world, _folder) = World::fresh().await;
        world.seen.lose_done.set(2);
        world.seen.submit(mail(1, ANN, &["x@local.test", BOB, "x@local.test"]));
        world.until(async |w| w.seen.outbox.borrow().is_empty()).await;
        world.rests_with(0).await;
        let stored = world.stored_for("x@local.test");
        assert_eq!(stored.len(), 1, "who is named twice gets it once");
        assert_eq!(stored[0].content, mail(1, ANN, &[]).content);
        let sent = world.seen.sent.borrow();
        assert_eq!(sent.len(), 1);
        assert_eq!((sent[0].from.as_str(), &sent[0].to[..]), (ANN, &[BOB.to_owned()][..]));
        assert_eq!(sent[0].content, mail(1, ANN, &[]).content);
    })
    .await;
}

#[tokio::test]
async fn one_damaged_submission_does_not_hold_up_the_others() {
    local(async {
        let (world, _folder) = World::fresh().await;
        let mut lost = mail(1, ANN, &[BOB]);
        lost.content.clear();
        world.seen.submit(lost);
        world.seen.submit(mail(2, "not a path", &[BOB]));
        world.seen.submit(mail(3, ANN, &["not an address"]));
        world.seen.submit(mail(4, ANN, &[]));
        world.seen.submit(mail(5, ANN, &[BOB]));
        world.until(async |w| w.seen.sent.borrow().len() == 1).await;
        world.rests_with(0).await;
        assert_eq!(world.seen.sent.borrow()[0].content, mail(5, ANN, &[]).content);
        // The damaged ones stay where somebody can see to them.
        assert_eq!(world.seen.outbox.borrow().len(), 3);
    })
    .await;
}

#[tokio::test]
async fn tries_again_tells_of_the_delay_and_gives_up_with_a_notification() {
    local(async {
        let (world, _folder) = World::fresh().await;
        let later = (450, "4.2.1", "busy");
        world.seen.says(BOB, &[later, later, later, later]);
        world.seen.says(EVE, &[(550, "5.1.1", "no such user")]);
        world.seen.submit(mail(1, ANN, &[BOB, EVE]));
        // eve is given up at once, bob delayed: two notifications.
        world.until(async |w| w.stored_for(ANN).len() == 2).await;
        world.rests_with(1).await;
        world.pass(300).await;
        world.rests_with(1).await;
        assert_eq!(world.seen.sent.borrow().len(), 1, "not before its time");
        world.pass(360).await;
        world.until(async |w| w.seen.sent.borrow().len() == 2).await;
        world.rests_with(1).await;
        assert_eq!(world.seen.sent.borrow()[1].to, [BOB]);
        assert_eq!(world.seen.sent.borrow()[1].attempt, 2);
        world.pass(1_300).await;
        world.rests_with(0).await;
        assert_eq!(world.seen.sent.borrow().len(), 3);

        let reports = world.stored_for(ANN);
        assert_eq!(reports.len(), 3);
        assert!(reports.iter().all(|report| report.from.is_empty()), "null reverse-path");
        let text = |n: usize| String::from_utf8(reports[n].content.clone()).unwrap();
        let (delayed, failed): (Vec<_>, Vec<_>) =
            (0..2).map(text).partition(|text| text.contains("Action: delayed\r\n"));
        let (delayed, failed) = (&delayed[0], &failed[0]);
        for line in [
            "Content-Type: multipart/report; report-type=delivery-status;",
            "In-Reply-To: <1@a.test>\r\n",
            "Auto-Submitted: auto-replied\r\n",
            "Reporting-MTA: dns; mx.local.test\r\n",
            "Final-Recipient: rfc822; eve@remote.test\r\n",
            "Action: failed\r\n",
            "Status: 5.1.1\r\n",
            "Remote-MTA: dns; mx.remote.test\r\n",
            "Diagnostic-Code: smtp; 550 5.1.1 no such user\r\n",
            "Message-ID: <1@a.test>\r\n",
        ] {
            assert!(failed.contains(line), "{line:?} not in\n{failed}");
        }
        assert!(!failed.contains("Will-Retry-Until"), "{failed}");
        assert!(!failed.contains("body 1"), "the header alone goes back: {failed}");
        for line in ["Status: 4.2.1\r\n", "Will-Retry-Until: ", "Diagnostic-Code: smtp; 450 4.2.1 "]
        {
            assert!(delayed.contains(line), "{line:?} not in\n{delayed}");
        }
        for signed in [delayed, failed] {
            assert!(signed.starts_with("DKIM-Signature: v=1; d=mx.local.test; "), "{signed}");
            assert_eq!(signed.matches("DKIM-Signature").count(), 1, "the stale key signs nothing");
        }
        let value = |count| world.figures.value(count);
        let counts = [value(Count::QueueFailed), value(Count::QueueDeferred)];
        assert_eq!((counts, value(Count::DsnsSent)), ([2, 2], 3));
        let last = text(2);
        for line in ["Action: failed\r\n", "Status: 5.2.1\r\n", "rfc822; bob@remote.test\r\n"] {
            assert!(last.contains(line), "{line:?} not in\n{last}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_full_disk_of_ours_is_tried_again_soon_and_costs_no_attempt() {
    local(async {
        let (world, _folder) = World::fresh().await;
        world.seen.says("x@local.test", &[(452, "4.3.1", "Insufficient storage")]);
        world.seen.submit(mail(1, ANN, &["x@local.test"]));
        world.until(async |w| w.figure("queued").await == 1 && !w.first().await.0.is_empty()).await;
        world.rests_with(1).await;
        assert_eq!(world.figure("deferred").await, 0, "no attempt");
        assert_eq!(world.first().await.1, START.plus(Duration::from_secs(1)));
        world.pass(2).await;
        world.rests_with(0).await;
        assert_eq!(world.stored_for("x@local.test").len(), 1);
        assert!(world.stored_for(ANN).is_empty(), "nobody is told of it");
    })
    .await;
}

#[tokio::test]
async fn a_fault_of_accountd_is_tried_again_within_a_minute_and_not_for_ever() {
    local(async {
        let (world, _folder) = World::fresh().await;
        world.seen.says("x@local.test", &[FAULT; 9]);
        world.seen.submit(mail(1, ANN, &["x@local.test"]));
        let left = |w: &World| w.seen.says.borrow()["x@local.test"].len();
        let mut waits = Vec::new();
        for n in (0..9).rev() {
            world.until(async |w| left(w) == n).await;
            world.rests_with(1).await;
            let wait = world.first().await.1.0 - world.clock.now().0;
            waits.push(u64::try_from(wait).unwrap() / 1_000_000_000);
            if n > 0 {
                assert_eq!(world.figure("deferred").await, 0, "no attempt");
                world.pass(waits.last().unwrap() + 1).await;
            }
        }
        assert_eq!(waits[..8], [1, 2, 4, 8, 16, 32, 60, 60]);
        // From here on by the schedule, and its sender is told, as of any other delay.
        assert!((600..660).contains(&waits[8]), "{waits:?}");
        world.until(async |w| w.stored_for(ANN).len() == 1).await;
        // The notice counts, too, while it is on its way.
        world.rests_with(1).await;
        assert_eq!(world.figure("deferred").await, 1);
        world.pass(660).await;
        world.until(async |w| w.stored_for("x@local.test").len() == 1).await;
        world.rests_with(0).await;
    })
    .await;
}

#[tokio::test]
async fn what_comes_from_a_domain_that_is_switched_off_waits() {
    local(async {
        let (world, _folder) = World::fresh().await;
        world.seen.suspended.set(true);
        world.seen.submit(mail(1, ANN, &[BOB, "x@local.test"]));
        // Others are not concerned: the notice of the delay has no sender.
        world.until(async |w| w.stored_for(ANN).len() == 2).await;
        world.rests_with(2).await;
        assert!(world.seen.sent.borrow().is_empty());
        assert!(world.stored_for("x@local.test").is_empty());
        assert_eq!(world.first().await.0, "451 4.3.0 Mail from this domain is suspended");
        assert_eq!(world.figure("deferred").await, 2, "an attempt like any other");
        world.seen.suspended.set(false);
        world.pass(660).await;
        world.rests_with(0).await;
        assert_eq!(world.seen.sent.borrow().len(), 1);
        assert_eq!(world.stored_for("x@local.test").len(), 1);
    })
    .await;
}

#[tokio::test]
async fn who_sent_from_a_domain_that_stays_switched_off_is_told() {
    local(async {
        let (world, _folder) = World::fresh().await;
        world.seen.suspended.set(true);
        world.seen.submit(mail(1, ANN, &[BOB]));
        for (told, seconds) in [(1, 660), (1, 1_300)] {
            world.until(async |w| w.stored_for(ANN).len() == told).await;
            world.rests_with(1).await;
            world.pass(seconds).await;
        }
        world.until(async |w| w.stored_for(ANN).len() == 2).await;
        world.rests_with(0).await;
        assert!(world.seen.sent.borrow().is_empty());
        let told = world.stored_for(ANN);
        assert!(told.iter().all(|one| one.notification), "or accountd would not let it through");
        let report = String::from_utf8(told[1].content.clone()).unwrap();
        assert!(report.contains("Action: failed\r\n"), "{report}");
        assert!(report.contains("Mail from this domain is suspended"), "{report}");
        // A user's mail does not pass for one.
        world.seen.suspended.set(false);
        world.seen.submit(mail(2, "", &["x@local.test"]));
        world.until(async |w| w.stored_for("x@local.test").len() == 1).await;
        assert!(!world.stored_for("x@local.test")[0].notification);
    })
    .await;
}

#[tokio::test]
async fn no_notification_about_a_notification() {
    local(async {
        let (world, _folder) = World::fresh().await;
        world.seen.says(BOB, &[(550, "5.1.1", "no")]);
        world.seen.submit(mail(1, "", &[BOB]));
        world.until(async |w| w.seen.sent.borrow().len() == 1).await;
        world.rests_with(0).await;
        // Nor when the sender of a message that failed cannot be reached.
        world.seen.says(BOB, &[(550, "5.1.1", "no")]);
        world.seen.says("gone@local.test", &[(550, "5.1.1", "nobody here")]);
        world.seen.submit(mail(2, "gone@local.test", &[BOB]));
        world.until(async |w| w.seen.sent.borrow().len() == 2).await;
        world.rests_with(0).await;
        assert!(world.seen.stored.borrow().is_empty());
    })
    .await;
}

#[tokio::test]
async fn an_accountd_that_is_away_costs_no_attempt() {
    local(async {
        let folder = tempfile::tempdir().unwrap();
        let seen = World::new_seen();
        {
            let disk = Arc::new(RealDisk);
            let world = World::over(folder.path(), disk, Rc::clone(&seen), START).await;
            seen.says(BOB, &[(450, "4.2.1", "busy")]);
            seen.submit(mail(1, ANN, &[BOB]));
            world.until(async |w| w.stored_for(ANN).len() == 1).await;
            world.rests_with(1).await;
        }
        let at = START.plus(Duration::from_secs(700));
        let disk = Arc::new(RealDisk);
        let mut world = World::without_accountd(folder.path(), disk, Rc::clone(&seen), at).await;
        for _ in 0..3 {
            // Tried and put off by a fault, again and again.
            let now = world.clock.now();
            world.until(async |w| w.first().await.1 > now).await;
            assert!(world.first().await.0.contains("process"), "{:?}", world.first().await);
            world.pass(5).await;
        }
        assert_eq!(seen.sent.borrow().len(), 1);
        world.accountd_comes().await;
        world.pass(9).await;
        world.until(async |w| w.seen.sent.borrow().len() == 2).await;
        world.rests_with(0).await;
        assert_eq!(seen.sent.borrow()[1].attempt, 2, "the fault of ours was not counted");
    })
    .await;
}

#[tokio::test]
async fn an_outbound_that_dies_at_the_end_of_a_job_costs_one() {
    local(async {
        let (world, _folder) = World::fresh().await;
        world.seen.hang_up.set(9);
        world.seen.submit(mail(1, ANN, &[BOB]));
        for (jobs, seconds) in [(1, 660), (2, 1_300), (3, 10)] {
            world.until(async |w| w.seen.sent.borrow().len() == jobs).await;
            world.rests_with(u64::from(jobs != 3)).await;
            world.pass(seconds).await;
        }
        assert_eq!(world.seen.sent.borrow().len(), 3, "it is given up, not tried for ever");
        let report = world.stored_for(ANN).pop().unwrap();
        let report = String::from_utf8(report.content).unwrap();
        assert!(report.contains("Action: failed\r\n") && report.contains("Status: 5.3.0\r\n"));
        assert!(!report.contains("Remote-MTA"), "no server said that: {report}");
    })
    .await;
}

#[tokio::test]
async fn two_answers_that_disagree_about_what_is_local_come_to_an_end() {
    local(async {
        let (world, _folder) = World::fresh().await;
        // is_local() says yes, deliver() says no.
        world.seen.says("x@local.test", &[(0, "", ""); 3]);
        world.seen.submit(mail(1, ANN, &["x@local.test"]));
        for (left, seconds) in [(2, 660), (1, 1_300), (0, 10)] {
            world.until(async |w| w.seen.says.borrow()["x@local.test"].len() == left).await;
            world.rests_with(u64::from(left != 0)).await;
            world.pass(seconds).await;
        }
        let report = String::from_utf8(world.stored_for(ANN).pop().unwrap().content).unwrap();
        assert!(report.contains("Action: failed\r\n"), "{report}");
    })
    .await;
}

#[tokio::test]
async fn a_long_queue_for_one_domain_does_not_hide_the_others() {
    local(async {
        let (world, _folder) = World::fresh().await;
        let later = (450, "4.2.1", "busy");
        let slow: Vec<String> = (0..2_500).map(|n| format!("r{n}@slow.test")).collect();
        for to in &slow {
            world.seen.says(to, &[later]);
        }
        let all: Vec<&str> = slow.iter().map(String::as_str).chain([BOB]).collect();
        world.seen.submit(mail(1, "", &all));
        world.until(async |w| w.seen.sent.borrow().iter().any(|sent| sent.to == [BOB])).await;
        let before = world.seen.sent.borrow().iter().position(|sent| sent.to == [BOB]);
        assert!(before.unwrap() < 6, "{before:?}");
        world.rests_with(2_500).await;
    })
    .await;
}

#[tokio::test]
async fn administrators_page_retry_show_and_drop() {
    local(async {
        let (world, _folder) = World::fresh().await;
        let to: Vec<String> = (0..1_000).map(|n| format!("r{n}@remote.test")).collect();
        for address in &to {
            world.seen.says(address, &[(450, "4.2.1", "busy")]);
        }
        let addresses: Vec<&str> = to.iter().map(String::as_str).collect();
        world.seen.submit(mail(1, "", &addresses));
        world.until(async |w| w.figure("deferred").await == 1_000).await;
        world.rests_with(1_000).await;

        let (mut listed, mut after) = (Vec::new(), Vec::new());
        loop {
            let mut request = world.admin.list_request();
            request.get().set_after(&after);
            request.get().init_filter().set_to("@remote.test");
            let answer = request.send().promise.await.unwrap();
            let answer = answer.get().unwrap();
            for item in answer.get_items().unwrap() {
                assert_eq!(item.get_attempts(), 1);
                assert_eq!(item.get_last_error().unwrap(), "mx.remote.test: 450 4.2.1 busy");
                after = item.get_id().unwrap().to_vec();
                listed.push((item.get_to().unwrap().to_string().unwrap(), after.clone()));
            }
            if listed.len() == 200 {
                // The last one of the page goes: the next does not begin anew.
                let mut request = world.admin.drop_request();
                request.get().init_filter().init_ids(1).set(0, &after);
                let answer = request.send().promise.await.unwrap();
                assert_eq!(answer.get().unwrap().get_count(), 1);
            }
            if !answer.get_more() {
                break;
            }
        }
        let mut names: Vec<&String> = listed.iter().map(|(to, _)| to).collect();
        names.sort();
        names.dedup();
        assert_eq!((listed.len(), names.len()), (1_000, 1_000));

        let mut request = world.admin.retry_request();
        request.get().init_filter().set_to(&listed[500].0);
        assert_eq!(request.send().promise.await.unwrap().get().unwrap().get_count(), 1);
        world.rests_with(998).await;
        assert_eq!(world.seen.sent.borrow().last().unwrap().to, [listed[500].0.clone()]);

        let got = Rc::new(RefCell::new((Vec::new(), false)));
        let mut request = world.admin.show_request();
        request.get().set_queue_id(&listed[700].1);
        request.get().set_sink(ipc::new_client(Shown(Rc::clone(&got))));
        request.send().promise.await.unwrap();
        assert_eq!(*got.borrow(), (mail(1, "", &[]).content, true));

        // A filter without anything in it means nothing.
        let mut request = world.admin.drop_request();
        request.get().init_filter();
        assert_eq!(request.send().promise.await.unwrap().get().unwrap().get_count(), 0);
        let mut request = world.admin.drop_request();
        request.get().init_filter().set_all(true);
        assert_eq!(request.send().promise.await.unwrap().get().unwrap().get_count(), 998);
        world.rests_with(0).await;
    })
    .await;
}

struct Shown(Rc<RefCell<(Vec<u8>, bool)>>);

impl ipc::schema::types_capnp::byte_sink::Server for Shown {
    async fn write(
        self: Rc<Self>,
        params: ipc::schema::types_capnp::byte_sink::WriteParams,
    ) -> Result<(), ipc::capnp::Error> {
        self.0.borrow_mut().0.extend_from_slice(params.get()?.get_chunk()?);
        Ok(())
    }

    async fn end(
        self: Rc<Self>,
        _: ipc::schema::types_capnp::byte_sink::EndParams,
        _: ipc::schema::types_capnp::byte_sink::EndResults,
    ) -> Result<(), ipc::capnp::Error> {
        self.0.borrow_mut().1 = true;
        Ok(())
    }
}
