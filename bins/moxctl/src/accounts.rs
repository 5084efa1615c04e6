//! `moxctl account`, `clientkey`, `address` and `domain`.

use crate::{
    cli::{Account, Address, ClientKey, Domain},
    failure::Failure,
    messages::done,
    reach::{LONG, SHORT, Sockets},
    show::{Output, time},
};
use ipc::{
    Role, capnp,
    schema::control_capnp::{account_admin, progress},
    within,
};
use serde_json::Value;
use std::{
    io::{BufRead as _, IsTerminal as _, Write as _},
    rc::Rc,
};
use types::Secret;

/// The longest password that is read; the server has its own bound.
const MAX_PASSWORD_LINE: u64 = 4_096;

/// Makes a call with some text parameters and reports its problem.
macro_rules! simple {
    ($admin:expr, $request:ident, $($set:ident = $value:expr),*) => {{
        let mut request = $admin.$request();
        $( request.get().$set($value); )*
        let answer = within(SHORT, request.send().promise).await?;
        done(answer.get()?.get_problem()?)
    }};
}

fn ask<T>(
    sockets: &Sockets,
    work: impl AsyncFnOnce(account_admin::Client) -> Result<T, Failure>,
) -> Result<T, Failure> {
    sockets.ask(Role::Accountd.name(), work)
}

pub(crate) fn account(sockets: &Sockets, what: Account, output: Output) -> Result<(), Failure> {
    match what {
        Account::List => ask(sockets, async |admin| list(&admin, output).await),
        Account::Add { name, address } => {
            let password = new_password()?;
            ask(sockets, async |admin| {
                simple!(
                    admin,
                    account_add_request,
                    set_name = &name,
                    set_address = &address,
                    set_password = password.expose().as_str()
                )
            })
        }
        Account::Remove { name } => {
            ask(sockets, async |admin| simple!(admin, account_remove_request, set_name = &name))
        }
        Account::Disable { message, .. } if message.trim().is_empty() => {
            Err(Failure::Usage("a disabled account needs a message for its user".into()))
        }
        Account::Disable { name, message } => ask(sockets, async |admin| {
            simple!(admin, account_disable_request, set_name = &name, set_message = &message)
        }),
        Account::Enable { name } => {
            ask(sockets, async |admin| simple!(admin, account_enable_request, set_name = &name))
        }
        Account::Password { name } => {
            let password = new_password()?;
            ask(sockets, async |admin| {
                simple!(
                    admin,
                    account_password_request,
                    set_name = &name,
                    set_password = password.expose().as_str()
                )
            })
        }
        Account::Logins { name, max } => {
            ask(sockets, async |admin| logins(&admin, &name, max, output).await)
        }
        Account::Verify { name, all: _, fix } => ask(sockets, async |admin| {
            let names = match name {
                Some(name) => {
                    // What an account's check finds is listed; that there is none is a failure.
                    let mut request = admin.addresses_request();
                    request.get().set_account(&name);
                    let answer = within(SHORT, request.send().promise).await?;
                    done(answer.get()?.get_problem()?)?;
                    vec![name]
                }
                // And the database that belongs to no account, by the name that no account has.
                None => every(&admin)
                    .await?
                    .into_iter()
                    .map(|account| account.name)
                    .chain([String::new()])
                    .collect(),
            };
            verify(&admin, &names, fix, output).await
        }),
    }
}

/// A row of the list of accounts.
struct Row {
    name: String,
    cells: Vec<Value>,
}

/// All accounts, page by page.
async fn every(admin: &account_admin::Client) -> Result<Vec<Row>, Failure> {
    let (mut after, mut rows) = (String::new(), Vec::new());
    loop {
        let mut request = admin.accounts_request();
        request.get().set_after(&after);
        let answer = within(SHORT, request.send().promise).await?;
        let page = answer.get()?;
        for account in page.get_list()? {
            after = account.get_name()?.to_string()?;
            let addresses = account.get_addresses()?.iter();
            let addresses = addresses
                .map(|a| Ok(Value::String(a?.to_string()?)))
                .collect::<Result<Vec<_>, capnp::Error>>()?;
            let cells = vec![
                Value::String(after.clone()),
                Value::Array(addresses),
                Value::from(account.get_messages()),
                Value::from(account.get_used_bytes()),
                Value::from(account.get_quota_bytes()),
                Value::Bool(account.get_disabled()),
                Value::String(account.get_state()?.to_string()?),
                Value::String(account.get_id()?.to_string()?),
            ];
            rows.push(Row { name: after.clone(), cells });
        }
        if !page.get_more() {
            return Ok(rows);
        }
    }
}

async fn list(admin: &account_admin::Client, output: Output) -> Result<(), Failure> {
    const COLUMNS: [&str; 8] =
        ["name", "addresses", "messages", "used_bytes", "quota_bytes", "disabled", "state", "id"];
    let rows: Vec<Vec<Value>> = every(admin).await?.into_iter().map(|row| row.cells).collect();
    output.table(&COLUMNS, &rows);
    Ok(())
}

async fn logins(
    admin: &account_admin::Client,
    name: &str,
    max: u32,
    output: Output,
) -> Result<(), Failure> {
    const COLUMNS: [&str; 13] = [
        "last",
        "first",
        "count",
        "result",
        "ip",
        "protocol",
        "mechanism",
        "login",
        "tls",
        "local_ip",
        "listener",
        "client_key",
        "agent",
    ];
    let mut request = admin.account_logins_request();
    request.get().set_name(name);
    request.get().set_max(max);
    let answer = within(SHORT, request.send().promise).await?;
    done(answer.get()?.get_problem()?)?;
    let mut rows = Vec::new();
    for login in answer.get()?.get_list()? {
        rows.push(vec![
            time(login.get_last_unix_ns()),
            time(login.get_first_unix_ns()),
            Value::from(login.get_count()),
            Value::String(login.get_result()?.to_string()?),
            Value::String(login.get_ip()?.to_string()?),
            Value::String(login.get_protocol()?.to_string()?),
            Value::String(login.get_mechanism()?.to_string()?),
            Value::String(login.get_login()?.to_string()?),
            Value::String(login.get_tls()?.to_string()?),
            Value::String(login.get_local_ip()?.to_string()?),
            Value::String(login.get_listener()?.to_string()?),
            Value::String(hex(login.get_client_key()?)),
            Value::String(login.get_agent()?.to_string()?),
        ]);
    }
    output.table(&COLUMNS, &rows);
    Ok(())
}

/// Progress on the terminal's last line, where there is a terminal.
struct Bar {
    /// Which account of how many.
    of_all: String,
}

impl progress::Server for Bar {
    async fn at(self: Rc<Self>, params: progress::AtParams) -> Result<(), capnp::Error> {
        let params = params.get()?;
        let mut terminal = std::io::stderr();
        if terminal.is_terminal() {
            let what: String =
                params.get_what()?.to_str()?.chars().filter(|c| !c.is_control()).collect();
            let (done, total) = (params.get_done(), params.get_total());
            // A terminal that went away is no reason to stop verifying.
            let _ = write!(terminal, "\r\u{1b}[K{}{done} of {total}: {what}", self.of_all);
            let _ = terminal.flush();
        }
        Ok(())
    }
}

async fn verify(
    admin: &account_admin::Client,
    names: &[String],
    fix: bool,
    output: Output,
) -> Result<(), Failure> {
    const COLUMNS: [&str; 5] = ["account", "class", "text", "fixed", "command"];
    let (mut rows, mut left) = (Vec::new(), 0);
    for (at, name) in (1..).zip(names) {
        let of_all = match names {
            [_] => String::new(),
            all => format!("{at} of {}, {name}: ", all.len()),
        };
        let mut request = admin.account_verify_request();
        request.get().set_name(name);
        request.get().set_fix(fix);
        request.get().set_progress(ipc::new_client(Bar { of_all }));
        let answer = within(LONG, request.send().promise).await?;
        if let Err(failure) = done(answer.get()?.get_problem()?) {
            // The others are looked at all the same.
            left += 1;
            rows.push(vec![
                Value::from(name.as_str()),
                Value::from("account"),
                Value::String(failure.to_string()),
                Value::Bool(false),
                Value::from("moxctl status"),
            ]);
            continue;
        }
        for finding in answer.get()?.get_findings()? {
            if !finding.get_fixed() {
                left += 1;
            }
            rows.push(vec![
                Value::String(finding.get_account()?.to_string()?),
                Value::String(finding.get_class()?.to_string()?),
                Value::String(finding.get_text()?.to_string()?),
                Value::Bool(finding.get_fixed()),
                Value::String(finding.get_command()?.to_string()?),
            ]);
        }
    }
    if std::io::stderr().is_terminal() {
        eprintln!();
    }
    if !rows.is_empty() {
        output.table(&COLUMNS, &rows);
    } else if !output.json {
        let named = names.iter().filter(|name| !name.is_empty()).count();
        let accounts = if named == 1 { "account" } else { "accounts" };
        output.line(&format!("{named} {accounts}: nothing found"));
    }
    if left > 0 {
        return Err(Failure::Failed(format!("{left} findings are left")));
    }
    Ok(())
}

pub(crate) fn client_key(
    sockets: &Sockets,
    what: ClientKey,
    output: Output,
) -> Result<(), Failure> {
    match what {
        ClientKey::List { account } => ask(sockets, async |admin| {
            let mut request = admin.client_keys_request();
            request.get().set_account(&account);
            let answer = within(SHORT, request.send().promise).await?;
            done(answer.get()?.get_problem()?)?;
            let mut rows = Vec::new();
            for key in answer.get()?.get_list()? {
                rows.push(vec![
                    Value::String(hex(key.get_fingerprint()?)),
                    Value::String(key.get_login()?.to_string()?),
                    Value::String(key.get_label()?.to_string()?),
                ]);
            }
            output.table(&["fingerprint", "login", "label"], &rows);
            Ok(())
        }),
        ClientKey::Add { account, fingerprint, login, label } => {
            let fingerprint = read_fingerprint(&fingerprint)?;
            ask(sockets, async |admin| {
                simple!(
                    admin,
                    client_key_add_request,
                    set_account = &account,
                    set_fingerprint = &fingerprint,
                    set_label = &label,
                    set_login = &login
                )
            })
        }
        ClientKey::Remove { fingerprint } => {
            let fingerprint = read_fingerprint(&fingerprint)?;
            ask(sockets, async |admin| {
                simple!(admin, client_key_remove_request, set_fingerprint = &fingerprint)
            })
        }
    }
}

pub(crate) fn address(sockets: &Sockets, what: Address, output: Output) -> Result<(), Failure> {
    match what {
        Address::List { account } => ask(sockets, async |admin| {
            let mut request = admin.addresses_request();
            request.get().set_account(&account);
            let answer = within(SHORT, request.send().promise).await?;
            done(answer.get()?.get_problem()?)?;
            let list = answer.get()?.get_list()?;
            let rows = list
                .iter()
                .map(|a| Ok(vec![Value::String(a?.to_string()?)]))
                .collect::<Result<Vec<_>, capnp::Error>>()?;
            output.table(&["address"], &rows);
            Ok(())
        }),
        Address::Add { address, account } => ask(sockets, async |admin| {
            simple!(admin, address_add_request, set_address = &address, set_account = &account)
        }),
        Address::Remove { address } => ask(sockets, async |admin| {
            simple!(admin, address_remove_request, set_address = &address)
        }),
    }
}

pub(crate) fn domain(sockets: &Sockets, what: Domain, output: Output) -> Result<(), Failure> {
    match what {
        Domain::List => ask(sockets, async |admin| {
            let answer = within(SHORT, admin.domains_request().send().promise).await?;
            let mut rows = Vec::new();
            for domain in answer.get()?.get_list()? {
                rows.push(vec![
                    Value::String(domain.get_name()?.to_string()?),
                    Value::from(domain.get_accounts()),
                    Value::Bool(domain.get_disabled()),
                ]);
            }
            output.table(&["domain", "accounts", "disabled"], &rows);
            Ok(())
        }),
        Domain::Add { domain, account } => ask(sockets, async |admin| {
            simple!(admin, domain_add_request, set_domain = &domain, set_account = &account)
        }),
        Domain::Remove { domain } => {
            ask(sockets, async |admin| simple!(admin, domain_remove_request, set_domain = &domain))
        }
    }
}

/// A new password: typed twice at a terminal, or the first line of standard input.
fn new_password() -> Result<Secret<String>, Failure> {
    if std::io::stdin().is_terminal() {
        let first = Secret::new(rpassword::prompt_password("New password: ")?);
        let again = Secret::new(rpassword::prompt_password("Again: ")?);
        if first.expose() != again.expose() {
            return Err(Failure::Failed("the two differ".into()));
        }
        return Ok(first);
    }
    use std::io::Read as _;
    let mut line = String::new();
    std::io::stdin().lock().take(MAX_PASSWORD_LINE).read_line(&mut line)?;
    let password = line.trim_end_matches(['\r', '\n']).to_owned();
    if password.is_empty() {
        return Err(Failure::Failed("no password on standard input".into()));
    }
    Ok(Secret::new(password))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// 64 hex digits, colons between them allowed (as openssl prints them).
fn read_fingerprint(text: &str) -> Result<Vec<u8>, Failure> {
    let digits: Vec<u8> = text
        .chars()
        .filter(|c| *c != ':')
        .map(|c| c.to_digit(16).and_then(|d| u8::try_from(d).ok()))
        .collect::<Option<_>>()
        .filter(|digits: &Vec<u8>| digits.len() == 64)
        .ok_or_else(|| Failure::Usage(format!("{text}: not 64 hex digits")))?;
    Ok(digits.chunks(2).map(|pair| pair.iter().fold(0, |value, d| value * 16 + d)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fingerprints_are_64_hex_digits() {
        let text = "ab:".repeat(31) + "CD";
        let bytes = read_fingerprint(&text).unwrap();
        assert_eq!((bytes.len(), bytes[0], bytes[31]), (32, 0xab, 0xcd));
        assert_eq!(hex(&bytes), "ab".repeat(31) + "cd");
        for bad in ["", "ab", "zz", &"a".repeat(65)] {
            assert!(read_fingerprint(bad).is_err(), "{bad}");
        }
    }
}
