//! Names that strangers give, through the mx door.

use super::*;

const SLICE: &str = r#"{"hostname":"mail.example.org","imap_sessions":2,"check_senders":true}"#;

fn start(folder: &std::path::Path, domains: &str, slice: &str) -> Bench {
    std::fs::create_dir_all(folder.join("directory")).unwrap();
    std::fs::write(folder.join("directory/domains.toml"), domains).unwrap();
    Bench::start_with(folder, slice)
}

/// 250, or the code that MAIL is refused with.
async fn mail(bench: &Bench, hello: (&str, bool), from: &str) -> u16 {
    let mx: mx_door::Client = bench.door(Role::SmtpdMx, 0).await;
    try_begin(&mx, hello, from).await.err().unwrap_or(250)
}

#[test]
fn names_of_strangers_are_looked_up() {
    on_a_local_set(async {
        let folder = tempfile::tempdir().unwrap();
        let bench = start(folder.path(), "[domain.\"hosted.invalid\"]\n", SLICE);
        let (helo, ehlo) = (|name| (name, false), |name| (name, true));
        let there = "x@elsewhere.example";
        assert_eq!(mail(&bench, helo("client.example"), there).await, 250);
        assert_eq!(mail(&bench, helo("client.invalid"), there).await, 550);
        assert_eq!(mail(&bench, ehlo("client.invalid"), there).await, 250);
        assert_eq!(mail(&bench, helo("[192.0.2.1]"), "").await, 250);
        assert_eq!(mail(&bench, ehlo("client.example"), "x@elsewhere.invalid").await, 550);
        let hosted = mail(&bench, ehlo("client.example"), "x@hosted.invalid").await;
        assert_eq!(hosted, 250, "what is hosted here takes mail here");
        bench.stop().await;

        let silent = SLICE.replace("true", "false");
        let bench = start(folder.path(), "", &silent);
        assert_eq!(mail(&bench, helo("client.invalid"), "x@elsewhere.invalid").await, 250);
        bench.stop().await;
    });
}
