//! Every method of every interface as data: what a grammar-driven caller needs. A test compares the
//! table with the schema files, so that a method that is added cannot be left out.

use ipc::{
    capnp::{
        introspect::{Introspect, Type, TypeVariant},
        schema::{Field, StructSchema},
        schema_capnp::{field, node, type_},
        traits::HasTypeId,
    },
    schema::{
        account_capnp as account, accountd_capnp as accountd, auth_capnp as auth,
        control_capnp as control, inbound_capnp as inbound, keyholder_capnp as keyholder,
        outbound_capnp as outbound, parser_capnp as parser, queue_capnp as queue,
        resolver_capnp as resolver, types_capnp as types,
    },
};

/// One method.
pub(crate) struct Method {
    /// Its number in the schema.
    pub(crate) number: u16,
    /// Its name as the schema has it.
    #[cfg_attr(not(test), expect(dead_code, reason = "for the comparison with the schema files"))]
    pub(crate) name: &'static str,
    /// What it takes.
    pub(crate) params: StructSchema,
    /// What it gives; none for one that streams.
    pub(crate) results: Option<StructSchema>,
}

/// One interface.
pub(crate) struct Interface {
    /// Its name as the schema has it.
    pub(crate) name: &'static str,
    /// Its number on the wire.
    pub(crate) id: u64,
    /// The one it extends.
    pub(crate) above: Option<u64>,
    /// Its own methods.
    pub(crate) methods: Vec<Method>,
}

fn schema(of: Type) -> StructSchema {
    match of.which() {
        TypeVariant::Struct(raw) => StructSchema::new(raw),
        _other => panic!("parameters and results are structs"),
    }
}

macro_rules! results {
    ($module:ident $interface:ident stream) => {
        None
    };
    ($module:ident $interface:ident $results:ident) => {
        Some(schema($module::$interface::$results::Owned::introspect()))
    };
}

macro_rules! interfaces {
    ($($name:literal $module:ident::$interface:ident $(($above:expr))? {
        $($number:literal $method:literal $params:ident $results:ident;)*
    })*) => {
        /// All of them.
        pub(crate) fn all() -> Vec<Interface> {
            vec![$(Interface {
                name: $name,
                id: <$module::$interface::Client as HasTypeId>::TYPE_ID,
                above: None::<u64>$(.or(Some($above)))?,
                methods: vec![$(Method {
                    number: $number,
                    name: $method,
                    params: schema($module::$interface::$params::Owned::introspect()),
                    results: results!($module $interface $results),
                },)*],
            },)*]
        }
    };
}

const DOOR: u64 = <accountd::door::Client as HasTypeId>::TYPE_ID;

interfaces! {
    "Account" account::account {
        0 "describe" describe_params describe_results;
        1 "mailboxes" mailboxes_params mailboxes_results;
        2 "create" create_params create_results;
        3 "delete" delete_params delete_results;
        4 "rename" rename_params rename_results;
        5 "subscribe" subscribe_params subscribe_results;
        6 "open" open_params open_results;
        7 "watch" watch_params watch_results;
        8 "append" append_params append_results;
        9 "narrow" narrow_params narrow_results;
    }
    "AppendSink" account::append_sink {
        0 "write" write_params stream;
        1 "commit" commit_params commit_results;
    }
    "Mailbox" account::mailbox {
        0 "rows" rows_params rows_results;
        1 "changes" changes_params changes_results;
        2 "meta" meta_params meta_results;
        3 "content" content_params content_results;
        4 "small" small_params small_results;
        5 "store" store_params store_results;
        6 "copy" copy_params copy_results;
        7 "move" move_params move_results;
        8 "expunge" expunge_params expunge_results;
        9 "searchText" search_text_params search_text_results;
        10 "applied" applied_params applied_results;
    }
    "Door" accountd::door {
        0 "config" config_params config_results;
        1 "gate" gate_params gate_results;
    }
    "MxDoor" accountd::mx_door (DOOR) {
        0 "inbound" inbound_params inbound_results;
    }
    "SubmissionDoor" accountd::submission_door (DOOR) {
        0 "authenticator" authenticator_params authenticator_results;
        1 "resume" resume_params resume_results;
    }
    "FrontDoor" accountd::front_door (DOOR) {
        0 "authenticator" authenticator_params authenticator_results;
    }
    "SessionDoor" accountd::session_door (DOOR) {
        0 "tickets" tickets_params tickets_results;
    }
    "WebDoor" accountd::web_door (DOOR) {
        0 "authenticator" authenticator_params authenticator_results;
        1 "tickets" tickets_params tickets_results;
    }
    "AdminDoor" accountd::admin_door (DOOR) {
        0 "login" login_params login_results;
    }
    "QueueDoor" accountd::queue_door (DOOR) {
        0 "outbox" outbox_params outbox_results;
        1 "delivery" delivery_params delivery_results;
    }
    "Config" accountd::config {
        0 "current" current_params current_results;
        1 "watch" watch_params watch_results;
    }
    "Gate" accountd::gate {
        0 "enter" enter_params enter_results;
    }
    "Authenticator" auth::authenticator {
        0 "mechanisms" mechanisms_params mechanisms_results;
        1 "start" start_params start_results;
    }
    "Exchange" auth::exchange {
        0 "respond" respond_params respond_results;
    }
    "Tickets" auth::tickets {
        0 "redeem" redeem_params redeem_results;
        1 "renew" renew_params renew_results;
    }
    "AccountAdmin" control::account_admin {
        0 "accounts" accounts_params accounts_results;
        1 "accountAdd" account_add_params account_add_results;
        2 "accountRemove" account_remove_params account_remove_results;
        3 "accountDisable" account_disable_params account_disable_results;
        4 "accountEnable" account_enable_params account_enable_results;
        5 "accountPassword" account_password_params account_password_results;
        6 "accountLogins" account_logins_params account_logins_results;
        7 "accountVerify" account_verify_params account_verify_results;
        8 "clientKeys" client_keys_params client_keys_results;
        9 "clientKeyAdd" client_key_add_params client_key_add_results;
        10 "clientKeyRemove" client_key_remove_params client_key_remove_results;
        11 "addresses" addresses_params addresses_results;
        12 "addressAdd" address_add_params address_add_results;
        13 "addressRemove" address_remove_params address_remove_results;
        14 "domains" domains_params domains_results;
        15 "domainAdd" domain_add_params domain_add_results;
        16 "domainRemove" domain_remove_params domain_remove_results;
        17 "messageShow" message_show_params message_show_results;
        18 "directoryRead" directory_read_params directory_read_results;
        19 "directoryWrite" directory_write_params directory_write_results;
        20 "status" status_params status_results;
        21 "adminPassword" admin_password_params admin_password_results;
        22 "limitsClear" limits_clear_params limits_clear_results;
    }
    "Progress" control::progress {
        0 "at" at_params stream;
    }
    "QueueAdmin" control::queue_admin {
        0 "list" list_params list_results;
        1 "retry" retry_params retry_results;
        2 "drop" drop_params drop_results;
        3 "show" show_params show_results;
        4 "status" status_params status_results;
    }
    "KeyControl" control::key_control {
        0 "keys" keys_params keys_results;
        1 "status" status_params status_results;
    }
    "Inbound" inbound::inbound {
        0 "begin" begin_params begin_results;
    }
    "Transaction" inbound::transaction {
        0 "recipient" recipient_params recipient_results;
        1 "data" data_params data_results;
    }
    "MessageSink" inbound::message_sink {
        0 "write" write_params stream;
        1 "commit" commit_params commit_results;
        2 "heard" heard_params heard_results;
    }
    "Submitter" inbound::submitter {
        0 "begin" begin_params begin_results;
    }
    "TlsDoor" keyholder::tls_door {
        0 "certificates" certificates_params certificates_results;
        1 "watch" watch_params watch_results;
    }
    "AccountdKeys" keyholder::accountd_keys {
        0 "pepper" pepper_params pepper_results;
        1 "dkim" dkim_params dkim_results;
        2 "keyAdmin" key_admin_params key_admin_results;
    }
    "HostKeys" keyholder::host_keys {
        0 "dkim" dkim_params dkim_results;
    }
    "Pepper" keyholder::pepper {
        0 "seal" seal_params seal_results;
        1 "open" open_params open_results;
        2 "mac" mac_params mac_results;
    }
    "DkimSigner" keyholder::dkim_signer {
        0 "describe" describe_params describe_results;
        1 "sign" sign_params sign_results;
    }
    "KeyAdmin" keyholder::key_admin {
        0 "hosted" hosted_params hosted_results;
        1 "generateDkim" generate_dkim_params generate_dkim_results;
        2 "listDkim" list_dkim_params list_dkim_results;
        3 "retireDkim" retire_dkim_params retire_dkim_results;
    }
    "Outbound" outbound::outbound {
        0 "deliver" deliver_params deliver_results;
    }
    "Delivery" outbound::delivery {
        0 "write" write_params stream;
        1 "finish" finish_params finish_results;
    }
    "Parser" parser::parser {
        0 "job" job_params job_results;
    }
    "Job" parser::job {
        0 "write" write_params stream;
        1 "finish" finish_params finish_results;
    }
    "Facts" parser::facts {
        0 "summary" summary_params summary_results;
        1 "blob" blob_params blob_results;
        2 "text" text_params text_results;
    }
    "Outbox" queue::outbox {
        0 "watch" watch_params watch_results;
        1 "take" take_params take_results;
        2 "content" content_params content_results;
        3 "done" done_params done_results;
    }
    "Delivery" queue::delivery {
        0 "deliver" deliver_params deliver_results;
        1 "isLocal" is_local_params is_local_results;
    }
    "DeliverySink" queue::delivery_sink {
        0 "write" write_params stream;
        1 "commit" commit_params commit_results;
    }
    "Resolver" resolver::resolver {
        0 "lookup" lookup_params lookup_results;
        1 "reverse" reverse_params reverse_results;
    }
    "ByteSink" types::byte_sink {
        0 "write" write_params stream;
        1 "end" end_params end_results;
    }
    "Watched" types::watched {
        0 "changed" changed_params changed_results;
        1 "revoked" revoked_params revoked_results;
    }
    "Handle" types::handle {
    }
}

/// Where a result holds an object, and which interface it has.
pub(crate) struct Given {
    /// The pointers to follow from the result.
    pub(crate) path: Vec<u16>,
    /// Its interface.
    pub(crate) interface: u64,
}

/// How deep results nest objects.
const DEPTH: usize = 4;

/// Every object in a result.
pub(crate) fn objects(of: StructSchema) -> Vec<Given> {
    let mut found = Vec::new();
    gather(of, &mut Vec::new(), &mut found, DEPTH);
    found
}

fn gather(of: StructSchema, path: &mut Vec<u16>, found: &mut Vec<Given>, depth: usize) {
    let Some(left) = depth.checked_sub(1) else { return };
    for field in fields(of) {
        match field.get_proto().which() {
            Ok(field::Group(_)) => gather(schema(field.get_type()), path, found, left),
            Ok(field::Slot(slot)) => {
                path.push(u16::try_from(slot.get_offset()).expect("few pointers"));
                if let Some(interface) = interface_of(field) {
                    found.push(Given { path: path.clone(), interface });
                } else if let TypeVariant::Struct(raw) = field.get_type().which() {
                    gather(StructSchema::new(raw), path, found, left);
                }
                path.pop();
            }
            Err(_) => {}
        }
    }
}

/// The fields of a struct.
pub(crate) fn fields(of: StructSchema) -> Vec<Field> {
    of.get_fields().map(|list| list.iter().collect()).unwrap_or_default()
}

/// The interface of a field that holds an object.
pub(crate) fn interface_of(field: Field) -> Option<u64> {
    let Ok(field::Slot(slot)) = field.get_proto().which() else { return None };
    match slot.get_type().ok()?.which() {
        Ok(type_::Interface(interface)) => Some(interface.get_type_id()),
        _other => None,
    }
}

/// Data words, pointers, and the place and number of variants of the union if there is one.
pub(crate) fn layout(of: StructSchema) -> (u16, u16, Option<(usize, u16)>) {
    let Ok(node::Struct(layout)) = of.get_proto().which() else {
        panic!("a struct schema is of a struct")
    };
    let variants = layout.get_discriminant_count();
    let union = (variants > 0).then(|| (layout.get_discriminant_offset() as usize * 2, variants));
    (layout.get_data_word_count(), layout.get_pointer_count(), union)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn the_table_is_what_the_schema_files_say() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../ipc-schema/schema");
        let mut wanted = BTreeSet::new();
        for file in std::fs::read_dir(folder).expect("the schema files") {
            let text = std::fs::read_to_string(file.expect("an entry").path()).expect("a text");
            let mut interface = None;
            for line in text.lines() {
                if let Some(rest) = line.strip_prefix("interface ") {
                    interface = rest.split([' ', '(']).next().map(str::to_owned);
                } else if line == "}" {
                    interface = None;
                } else if let (Some(interface), Some((head, rest))) =
                    (&interface, line.split_once(" @"))
                    && let Some((number, _)) = rest.split_once(" (")
                    && number.parse::<u16>().is_ok()
                {
                    wanted.insert(format!("{interface}.{} {number}", head.trim()));
                }
            }
        }
        let known = all()
            .into_iter()
            .flat_map(|i| {
                let names = i.methods.iter().map(|m| format!("{}.{} {}", i.name, m.name, m.number));
                names.collect::<Vec<_>>()
            })
            .collect::<BTreeSet<_>>();
        assert_eq!(known, wanted);
        assert!(known.len() > 100);
    }

    #[test]
    fn objects_are_found_inside_outcomes() {
        let all = all();
        let inbound = all.iter().find(|i| i.name == "Inbound").expect("Inbound");
        let given = objects(inbound.methods[0].results.expect("results"));
        assert_eq!(given.len(), 1);
        assert_eq!(given[0].path.len(), 2, "outcome, then transaction");
    }
}
