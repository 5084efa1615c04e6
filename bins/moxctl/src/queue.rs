//! `moxctl queue`.

use crate::{
    cli::{Filter, Queue},
    failure::Failure,
    reach::{SHORT, Sockets},
    show::{Output, time},
};
use ipc::{
    Role,
    schema::control_capnp::{queue_admin, queue_filter},
    within,
};
use serde_json::Value;
use types::QueueId;

const COLUMNS: [&str; 9] =
    ["id", "account", "from", "to", "size", "queued", "attempts", "next_attempt", "last_error"];

pub(crate) fn run(sockets: &Sockets, what: Queue, output: Output) -> Result<(), Failure> {
    sockets.ask(Role::QueueRunner.name(), async |admin: queue_admin::Client| match what {
        Queue::List { mut filter } => {
            check(&filter)?;
            // Naming nothing lists everything: looking is harmless.
            filter.all = true;
            list(&admin, &filter, output).await
        }
        Queue::Retry { filter } => {
            check_given(&filter, "retry")?;
            let mut request = admin.retry_request();
            fill(&filter, request.get().init_filter())?;
            let answer = within(SHORT, request.send().promise).await?;
            acted(&filter, "made due", answer.get()?.get_count(), output)
        }
        Queue::Drop { filter } => {
            check_given(&filter, "drop")?;
            let mut request = admin.drop_request();
            fill(&filter, request.get().init_filter())?;
            let answer = within(SHORT, request.send().promise).await?;
            acted(&filter, "dropped", answer.get()?.get_count(), output)
        }
    })
}

/// Says how many it was. None at all, of what somebody named, is most likely a slip.
fn acted(filter: &Filter, what: &str, count: u64, output: Output) -> Result<(), Failure> {
    output.fact(what, &Value::from(count));
    if count == 0 && !filter.all {
        return Err(Failure::Failed("nothing in the queue is what the filter names".into()));
    }
    Ok(())
}

fn check_given(filter: &Filter, command: &str) -> Result<(), Failure> {
    check(filter)?;
    let conditions = [&filter.account, &filter.from, &filter.to];
    if !filter.all && filter.ids.is_empty() && conditions.iter().all(|text| text.is_empty()) {
        return Err(Failure::Usage(format!(
            "queue {command} needs a filter: queue ids, --account, --from, --to, or --all for \
             everything"
        )));
    }
    Ok(())
}

/// What can never match anything is told rather than looked for.
fn check(filter: &Filter) -> Result<(), Failure> {
    for (option, text) in [("--from", &filter.from), ("--to", &filter.to)] {
        if !text.is_empty() && !text.contains('@') {
            return Err(Failure::Usage(format!(
                "{option} {text}: no address; a whole domain is written @{text}"
            )));
        }
    }
    filter.ids.iter().try_for_each(|text| id(text).map(drop))
}

fn id(text: &str) -> Result<QueueId, Failure> {
    text.parse().map_err(|_| Failure::Usage(format!("{text}: not a queue id")))
}

fn fill(filter: &Filter, mut to: queue_filter::Builder<'_>) -> Result<(), Failure> {
    to.set_account(&filter.account);
    to.set_from(&filter.from);
    to.set_to(&filter.to);
    to.set_all(filter.all);
    let count = u32::try_from(filter.ids.len()).map_err(|_| Failure::Failed("too many".into()))?;
    let mut ids = to.init_ids(count);
    for (at, text) in (0..).zip(&filter.ids) {
        ids.set(at, id(text)?.as_bytes());
    }
    Ok(())
}

async fn list(admin: &queue_admin::Client, filter: &Filter, output: Output) -> Result<(), Failure> {
    let (mut after, mut rows) = (Vec::new(), Vec::new());
    loop {
        let mut request = admin.list_request();
        fill(filter, request.get().init_filter())?;
        request.get().set_after(&after);
        let answer = within(SHORT, request.send().promise).await?;
        let page = answer.get()?;
        for item in page.get_items()? {
            after = item.get_id()?.to_vec();
            let id = QueueId::try_from(item.get_id()?)
                .map_err(|_| Failure::Failed("the queue answered without an id".into()))?;
            rows.push(vec![
                Value::String(id.to_string()),
                Value::String(item.get_account()?.to_string()?),
                Value::String(item.get_from()?.to_string()?),
                Value::String(item.get_to()?.to_string()?),
                Value::from(item.get_size()),
                time(item.get_queued_unix_ns()),
                Value::from(item.get_attempts()),
                time(item.get_next_attempt_unix_ns()),
                Value::String(item.get_last_error()?.to_string()?),
            ]);
        }
        if !page.get_more() {
            break;
        }
    }
    output.table(&COLUMNS, &rows);
    Ok(())
}
