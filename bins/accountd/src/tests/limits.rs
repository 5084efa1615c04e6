//! What is counted against strangers, over the end of a process.

use super::*;
use ipc::schema::auth_capnp::Failure;
use storage::rusqlite::Connection;

const ANN: &str = "ann@example.org";

async fn front(bench: &Bench) -> authenticator::Client {
    let front: front_door::Client = bench.door(Role::ImapdFront, 0).await;
    front.authenticator_request().send().pipeline.get_authenticator()
}

/// Guesses until the limit is reached.
async fn guess(bench: &Bench) {
    let authenticator = front(bench).await;
    for n in 0..10 {
        let failure = log_in(&authenticator, ANN, "wrong").await.err();
        assert_eq!(failure, Some(Failure::BadCredentials), "{n}");
    }
    assert_is_limited(bench).await;
}

async fn assert_is_limited(bench: &Bench) {
    let failure = log_in(&front(bench).await, ANN, PASSWORD).await.err();
    assert_eq!(failure, Some(Failure::TooManyFailures));
}

/// Begins to log in by LOGIN, is asked for the password, and goes away.
async fn give_up(authenticator: &authenticator::Client) {
    let mut request = authenticator.start_request();
    set_peer(request.get().init_peer());
    request.get().set_mechanism("LOGIN");
    request.get().set_has_initial(true);
    request.get().set_initial(ANN.as_bytes());
    let response = request.send().promise.await.unwrap();
    let step = response.get().unwrap().get_step().unwrap();
    assert!(matches!(step.which().unwrap(), step::Which::Challenge(_)));
}

/// How many attempts with names that are nobody's, or not looked up, ended so.
async fn attempts(bench: &Bench, result: &str) -> u64 {
    let mut request = bench.admin().await.account_logins_request();
    request.get().set_max(100);
    let response = request.send().promise.await.unwrap();
    let list = response.get().unwrap().get_list().unwrap();
    let so = list.iter().filter(|login| login.get_result().unwrap() == result);
    so.map(|login| {
        assert_eq!(login.get_login().unwrap(), ANN);
        login.get_count()
    })
    .sum()
}

#[test]
fn who_gives_up_in_the_middle_is_counted_and_noted() {
    on_a_local_set(async {
        let folder = tempfile::tempdir().unwrap();
        let bench = Bench::start(folder.path());
        bench.set_password("ann", PASSWORD).await;
        // Until then a log-in fails as temporary, which counts for nothing.
        while let Err(failure) = log_in(&front(&bench).await, ANN, PASSWORD).await {
            assert_eq!(failure, Failure::Temporary);
        }
        let authenticator = front(&bench).await;
        for _ in 0..10 {
            give_up(&authenticator).await;
        }
        // History is written when nothing else is to do.
        while attempts(&bench, "aborted").await < 10 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_is_limited(&bench).await;
        bench.stop().await;
    });
}

#[test]
fn who_is_limited_stays_so_when_the_service_is_started_again() {
    on_a_local_set(async {
        let folder = tempfile::tempdir().unwrap();
        let bench = Bench::start(folder.path());
        bench.set_password("ann", PASSWORD).await;
        guess(&bench).await;
        bench.stop().await;
        let bench = Bench::start(folder.path());
        assert_is_limited(&bench).await;
        bench.stop().await;
    });
}

#[test]
fn who_is_limited_stays_so_though_the_service_had_no_time_to_stop() {
    let folder = tempfile::tempdir().unwrap();
    on_a_local_set(async {
        let bench = Bench::start(folder.path());
        bench.set_password("ann", PASSWORD).await;
        guess(&bench).await;
        // It is written down soon, not with the rest; then all ends at once, with the local set.
        let database = Connection::open(folder.path().join("accountd.db")).unwrap();
        let written = "SELECT count(*) FROM failed_minute WHERE count >= 10";
        while database.query_row(written, [], |row| row.get::<_, u32>(0)).unwrap() == 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    on_a_local_set(async {
        let bench = Bench::start(folder.path());
        assert_is_limited(&bench).await;
        bench.stop().await;
    });
}
