//! What the queue is told of a domain that was switched off.

use super::{Bench, DOMAINS, from_queue, on_a_local_set};
use ipc::{
    Role,
    schema::{
        accountd_capnp::queue_door,
        queue_capnp::{delivered, delivery, delivery_sink},
    },
};

/// Whether it is suspended, and whether bob is ours.
async fn ask(delivery: &delivery::Client, from: &str) -> (bool, bool) {
    let mut request = delivery.is_local_request();
    request.get().set_from(from);
    request.get().init_addresses(1).set(0, "bob@example.org");
    let response = request.send().promise.await.unwrap();
    let answer = response.get().unwrap();
    (answer.get_suspended(), answer.get_local().unwrap().get(0))
}

#[test]
fn mail_from_and_to_a_domain_that_is_switched_off_waits() {
    on_a_local_set(async {
        for enabled in [true, false] {
            let folder = tempfile::tempdir().unwrap();
            let domain = "[domain.\"example.org\"]\n";
            let off = DOMAINS.replacen(domain, &format!("{domain}enabled = {enabled}\n"), 1);
            std::fs::create_dir(folder.path().join("directory")).unwrap();
            std::fs::write(folder.path().join("directory/domains.toml"), off).unwrap();
            let bench = Bench::start(folder.path());
            let queue: queue_door::Client = bench.door(Role::QueueRunner, 0).await;
            let delivery = queue.delivery_request().send().pipeline.get_delivery();
            assert_eq!(ask(&delivery, "ann@example.org").await, (!enabled, true));
            assert_eq!(ask(&delivery, "x@elsewhere.example").await, (false, true));
            assert_eq!(ask(&delivery, "").await, (false, true));
            let outcome =
                from_queue(&delivery, "bob@example.org", b"From: a@b.example\r\n\r\n").await;
            assert_eq!(outcome, if enabled { "stored" } else { "450" });
            // What the queue tells its users reaches them: they can still read.
            let mut request = delivery.deliver_request();
            request.get().set_queue_id(&[6; 10]);
            request.get().set_to("bob@example.org");
            request.get().set_notification(true);
            let sink: delivery_sink::Client = request.send().pipeline.get_sink();
            let mut request = sink.write_request();
            request.get().set_chunk(b"From: postmaster@mx.example.org\r\n\r\n");
            request.send().await.unwrap();
            let response = sink.commit_request().send().promise.await.unwrap();
            let outcome = response.get().unwrap().get_outcome().unwrap().which().unwrap();
            assert!(matches!(outcome, delivered::Which::Stored(())));
            bench.stop().await;
        }
    });
}
