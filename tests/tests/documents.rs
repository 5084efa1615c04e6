//! What the documents say of who may do what is what the code does: row by row, as they stand there.

use ipc::Carries;
use sandbox::{Folders, Profile, Tcp, profiles};

/// The rows of the one table of a document that opens with this line, without its rule.
fn table<'a>(document: &'a str, head: &str) -> Vec<&'a str> {
    let mut lines = document.lines().skip_while(|line| *line != head);
    assert!(lines.next().is_some(), "no table opens with {head}");
    assert!(lines.next().is_some_and(|rule| rule.starts_with("|--")), "{head} has no rule");
    lines.take_while(|line| line.starts_with('|')).collect()
}

/// Compares row by row; what should stand there is printed as it should stand there.
fn says(document: &str, head: &str, expected: &[String]) {
    let found = table(document, head);
    let wrong: Vec<&String> =
        expected.iter().filter(|row| !found.contains(&row.as_str())).collect();
    assert!(
        found == expected,
        "the table is another in the code; it says\n{}\nand not {wrong:#?}",
        expected.join("\n")
    );
}

#[test]
fn the_wiring_table_of_the_architecture_is_that_of_the_code() {
    let rows: Vec<String> = ipc::WIRING
        .iter()
        .map(|edge| {
            let carries = match edge.carries {
                Carries::Rpc => "calls",
                Carries::RpcAndSigningSlots => "calls, signing slots",
                Carries::HandOver => "connections",
            };
            let (client, server) = (edge.client, edge.server);
            format!("| {client} | {server} | `{}` | {carries} | {} |", edge.bootstrap, edge.right)
        })
        .collect();
    let document = include_str!("../../docs/architecture.md");
    says(document, "| Asks | Answers | Finds | Carries | The right |", &rows);
}

#[test]
fn the_rights_of_the_threat_model_are_those_of_the_profiles() {
    let document = include_str!("../../docs/threat-model.md");
    let rows: Vec<String> = profiles::ALL.into_iter().map(rights).collect();
    says(
        document,
        "| Role | System calls, by group | Files | TCP | Open files | Data | Threads | One file | CPU |",
        &rows,
    );
    // And the table of what an attacker gets names each of them.
    let taken = table(document, "| Taken over | Attacker gets | Does not get | Tried by |");
    for profile in profiles::ALL {
        let words = profile.role.replace('-', " ");
        let named = |row: &&str| {
            let first = row.trim_start_matches("| ").split(" |").next().unwrap_or_default();
            [profile.role, words.as_str(), format!("{words} k").as_str()].contains(&first)
        };
        assert_eq!(taken.iter().copied().filter(|row| named(row)).count(), 1, "{}", profile.role);
    }
}

/// A role's row: everything of its profile but the arguments of calls.
fn rights(profile: &Profile) -> String {
    let groups: Vec<&str> = profile.grants.iter().map(|grant| grant.group.name).collect();
    let files = match profile.folders {
        Folders::None => "none",
        Folders::Own => "its own folder",
        Folders::ReadOnly => "reads the folders it is given",
    };
    let tcp = match profile.tcp {
        Tcp::None => "none",
        Tcp::Outgoing => "connects",
    };
    let limits = &profile.limits;
    let mebibytes = |octets: u64| format!("{} MiB", octets >> 20);
    let written = limits.file_size.map_or("-".to_owned(), mebibytes);
    let seconds = limits.cpu_seconds.map_or("-".to_owned(), |seconds| format!("{seconds} s"));
    format!(
        "| {} | {} | {files} | {tcp} | {} | {} | {} | {written} | {seconds} |",
        profile.role,
        groups.join(", "),
        limits.open_files,
        mebibytes(limits.memory),
        limits.threads,
    )
}
