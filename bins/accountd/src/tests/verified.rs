//! What an administrator is told of a check, and what helps.

use super::{Bench, on_a_local_set};
use ipc::{
    capnp,
    schema::control_capnp::{account_admin, problem, progress},
};
use std::path::Path;

struct Nobody;

impl progress::Server for Nobody {}

/// Texts and commands of findings, or the problem.
async fn verify(
    admin: &account_admin::Client,
    name: &str,
) -> Result<Vec<(String, String)>, (problem::Kind, String)> {
    let mut request = admin.account_verify_request();
    request.get().set_name(name);
    request.get().set_progress(ipc::new_client(Nobody));
    let response = request.send().promise.await.unwrap();
    let answer = response.get().unwrap();
    let text = |text: capnp::Result<capnp::text::Reader<'_>>| text.unwrap().to_string().unwrap();
    let problem = answer.get_problem().unwrap();
    let kind = problem.get_kind().unwrap();
    if kind != problem::Kind::None {
        return Err((kind, text(problem.get_text())));
    }
    let findings = answer.get_findings().unwrap().iter();
    Ok(findings.map(|f| (text(f.get_text()), text(f.get_command()))).collect())
}

async fn alarms(admin: &account_admin::Client) -> Vec<String> {
    let response = admin.status_request().send().promise.await.unwrap();
    let lines = response.get().unwrap().get_lines().unwrap();
    let of_checks = lines.iter().filter(|line| line.get_key().unwrap() == "alarm");
    let text = of_checks.map(|line| String::from_utf8(line.get_value().unwrap().to_vec()).unwrap());
    text.filter(|text| text.contains("verify left")).collect()
}

fn id_of(folder: &Path, name: &str) -> String {
    let text = std::fs::read_to_string(folder.join("directory/domains.toml")).unwrap();
    let block = text.split(&format!("[account.{name}]")).nth(1).unwrap();
    block.split("id = \"").nth(1).unwrap().split('"').next().unwrap().to_owned()
}

fn execute(database: &Path, sql: &str) {
    storage::rusqlite::Connection::open(database).unwrap().execute_batch(sql).unwrap();
}

const BREAK: &str = "INSERT INTO login SELECT x'00', 2, 1, 1, 0, '', '', '', '', '', ''";
const MEND: &str = "DELETE FROM login";

#[test]
fn findings_name_the_file_to_bring_back_and_stay_alarms() {
    on_a_local_set(async {
        let folder = tempfile::tempdir().unwrap();
        Bench::start(folder.path()).stop().await;
        let ann = id_of(folder.path(), "ann");
        let of_ann = format!("accountd/accounts/{ann}/auth.db");
        for (name, place) in [("", "accountd/accountd.db"), ("ann", of_ann.as_str())] {
            let database = folder.path().join(place.strip_prefix("accountd/").unwrap());
            execute(&database, BREAK);
            let bench = Bench::start(folder.path());
            let admin = bench.admin().await;
            let found = verify(&admin, name).await.unwrap();
            let helps = format!("moxctl stop, then bring back {place} from the backup");
            assert_eq!(found.len(), 1, "{found:?}");
            assert_eq!(found[0].1, helps, "{found:?}");
            let told = alarms(&admin).await;
            assert!(told.len() == 1 && told[0].ends_with(&found[0].0), "{told:?}");
            execute(&database, MEND);
            assert_eq!(verify(&admin, name).await, Ok(Vec::new()));
            assert_eq!(alarms(&admin).await, [""; 0]);
            bench.stop().await;
        }
    });
}

#[test]
fn an_account_that_is_gone_is_no_finding() {
    on_a_local_set(async {
        let folder = tempfile::tempdir().unwrap();
        let bench = Bench::start(folder.path());
        let admin = bench.admin().await;
        assert_eq!(verify(&admin, "bob").await, Ok(Vec::new()));
        let bob = folder.path().join("accounts").join(id_of(folder.path(), "bob"));
        std::fs::rename(bob, folder.path().join("gone")).unwrap();
        let gone = (problem::Kind::Missing, "account bob does not exist".to_owned());
        assert_eq!(verify(&admin, "bob").await, Err(gone));
        bench.stop().await;
    });
}
