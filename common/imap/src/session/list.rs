//! LIST, LSUB and STATUS: answers from one reading of all mailboxes.

use super::{Answer, End, Flow, MailboxInfo, Question, Session, Task};
use crate::{
    command::{ListCommand, Named, StatusItem},
    name::{MailboxName, NameError},
    out::Out,
    pattern::Pattern,
    response::ResponseCode,
};
use std::collections::{BTreeMap, BTreeSet};

/// What was asked.
#[derive(Debug)]
pub(super) enum Listing {
    List(ListCommand),
    Lsub(Pattern),
    Status(MailboxName, Vec<StatusItem>),
}

pub(super) fn lsub(pattern: Result<Pattern, NameError>) -> Flow {
    match pattern {
        Ok(pattern) => Flow::Ask(Question::Mailboxes, Task::List(Listing::Lsub(pattern))),
        Err(why) => Flow::End(End::bad_name(why)),
    }
}

pub(super) fn status(mailbox: Named, items: Vec<StatusItem>) -> Flow {
    match mailbox {
        Ok(name) => Flow::Ask(Question::Mailboxes, Task::List(Listing::Status(name, items))),
        Err(why) => Flow::End(End::bad_name(why)),
    }
}

impl Session {
    pub(super) fn list(&self, command: ListCommand, out: &mut Out) -> Flow {
        if command.root_only {
            // RFC 9051 §6.3.9: the separator and the root's name.
            out.text("* LIST (\\Noselect) \"/\" \"\"\r\n");
            return Flow::End(End::ok("done"));
        }
        match &command.patterns {
            Ok(_) => Flow::Ask(Question::Mailboxes, Task::List(Listing::List(command))),
            Err(why) => Flow::End(End::bad_name(*why)),
        }
    }

    pub(super) fn listed(&self, listing: &Listing, answer: Answer, out: &mut Out) -> Flow {
        let Answer::Mailboxes { list, subscriptions } = answer else {
            return Flow::End(End::bug());
        };
        let there: BTreeMap<&MailboxName, &MailboxInfo> =
            list.iter().map(|info| (&info.name, info)).collect();
        let subscribed: BTreeSet<&MailboxName> = subscriptions.iter().collect();
        match listing {
            Listing::List(command) => self.write_list(command, &there, &subscribed, out),
            Listing::Lsub(pattern) => self.write_lsub(pattern, &subscribed, out),
            Listing::Status(name, items) => match there.get(name) {
                Some(info) => self.status_line(info, items, out),
                None => {
                    return Flow::End(End::no(ResponseCode::NonExistent, "no such mailbox"));
                }
            },
        }
        Flow::End(End::ok("done"))
    }

    fn write_list(
        &self,
        command: &ListCommand,
        there: &BTreeMap<&MailboxName, &MailboxInfo>,
        subscribed: &BTreeSet<&MailboxName>,
        out: &mut Out,
    ) {
        let patterns = command.patterns.as_deref().unwrap_or_default();
        let matches = |name: &MailboxName| patterns.iter().any(|pattern| pattern.matches(name));
        // Parents of subscribed names that are not there either: RECURSIVEMATCH shows them.
        let absent: Vec<MailboxName> = if command.select.recursive {
            let above = subscribed.iter().flat_map(|name| ancestors(name));
            above.filter_map(|text| MailboxName::new(text).ok()).collect()
        } else {
            Vec::new()
        };
        let names: BTreeSet<&MailboxName> = if command.select.subscribed {
            there.keys().chain(subscribed).copied().chain(&absent).collect()
        } else {
            there.keys().copied().collect()
        };
        // Parents of every name, so that each look at a mailbox's children is one look-up.
        let parents: BTreeSet<&str> = there.keys().flat_map(|name| ancestors(name)).collect();
        let chosen = |name: &MailboxName| {
            let info = there.get(name);
            let by_subscription = !command.select.subscribed || subscribed.contains(name);
            let special = info.is_some_and(|info| info.role.is_some());
            by_subscription && (!command.select.special_use || special)
        };
        // RECURSIVEMATCH: a parent is named for the sake of a child that is chosen (RFC 5258 §3.5).
        let for_children: BTreeSet<&str> = if command.select.recursive {
            names.iter().filter(|name| chosen(name)).flat_map(|name| ancestors(name)).collect()
        } else {
            BTreeSet::new()
        };
        let hidden: BTreeSet<&str> = if command.select.recursive {
            let chosen = names.iter().filter(|name| chosen(name) && !matches(name));
            chosen.flat_map(|name| ancestors(name)).collect()
        } else {
            BTreeSet::new()
        };
        for name in names.iter().copied().filter(|name| matches(name)) {
            let (is_chosen, has_chosen) = (chosen(name), for_children.contains(name.as_str()));
            // RFC 9051 §6.3.9.6: a name that is not chosen is shown only for a child that is not
            // shown itself.
            if !is_chosen && !hidden.contains(name.as_str()) {
                continue;
            }
            let info = there.get(name).copied();
            let mut attributes = Vec::new();
            if info.is_none() {
                attributes.push("\\NonExistent");
            }
            let has_children = parents.contains(name.as_str());
            attributes.push(if has_children { "\\HasChildren" } else { "\\HasNoChildren" });
            let asked = command.give.subscribed || command.select.subscribed;
            if asked && subscribed.contains(name) {
                attributes.push("\\Subscribed");
            }
            if let Some(role) = info.and_then(|info| info.role) {
                attributes.push(role.attribute());
            }
            let extended = if has_chosen && command.select.subscribed {
                " (\"CHILDINFO\" (\"SUBSCRIBED\"))"
            } else if has_chosen {
                " (\"CHILDINFO\" (\"SPECIAL-USE\"))"
            } else {
                ""
            };
            self.list_line_with(name, &attributes.join(" "), extended, out);
            if let (Some(info), false) = (info, command.give.status.is_empty()) {
                self.status_line(info, &command.give.status, out);
            }
        }
    }

    /// RFC 3501 §6.3.9: with `%` at the end, a parent of a subscribed name is shown too.
    fn write_lsub(&self, pattern: &Pattern, subscribed: &BTreeSet<&MailboxName>, out: &mut Out) {
        let mut parents: BTreeSet<MailboxName> = BTreeSet::new();
        if pattern.ends_in_percent() {
            for name in subscribed {
                for parent in ancestors(name).filter_map(|text| MailboxName::new(text).ok()) {
                    if !subscribed.contains(&parent) && pattern.matches(&parent) {
                        parents.insert(parent);
                    }
                }
            }
        }
        let subscribed = subscribed.iter().copied().filter(|name| pattern.matches(name));
        for name in subscribed {
            self.lsub_line(name, "", out);
        }
        for name in &parents {
            self.lsub_line(name, "\\Noselect", out);
        }
    }

    fn lsub_line(&self, name: &MailboxName, attributes: &str, out: &mut Out) {
        out.show(format_args!("* LSUB ({attributes}) \"/\" "));
        self.mailbox(name, out);
        out.text("\r\n");
    }

    pub(super) fn list_line(&self, name: &MailboxName, attributes: &str, out: &mut Out) {
        self.list_line_with(name, attributes, "", out);
    }

    fn list_line_with(&self, name: &MailboxName, attributes: &str, extended: &str, out: &mut Out) {
        out.show(format_args!("* LIST ({attributes}) \"/\" "));
        self.mailbox(name, out);
        out.text(extended);
        out.text("\r\n");
    }

    fn mailbox(&self, name: &MailboxName, out: &mut Out) {
        out.astring(name.to_wire(self.names).as_bytes(), self.rev2);
    }

    fn status_line(&self, info: &MailboxInfo, items: &[StatusItem], out: &mut Out) {
        out.text("* STATUS ");
        self.mailbox(&info.name, out);
        out.text(" (");
        for (at, item) in items.iter().enumerate() {
            if at > 0 {
                out.text(" ");
            }
            match item {
                StatusItem::Messages => out.show(format_args!("MESSAGES {}", info.total)),
                StatusItem::Recent => out.text("RECENT 0"),
                StatusItem::UidNext => out.show(format_args!("UIDNEXT {}", info.uid_next)),
                StatusItem::UidValidity => {
                    out.show(format_args!("UIDVALIDITY {}", info.uid_validity));
                }
                StatusItem::Unseen => out.show(format_args!("UNSEEN {}", info.unseen)),
                StatusItem::Deleted => out.show(format_args!("DELETED {}", info.deleted)),
                StatusItem::Size => out.show(format_args!("SIZE {}", info.bytes)),
                StatusItem::AppendLimit => {
                    out.show(format_args!("APPENDLIMIT {}", self.append_limit));
                }
            }
        }
        out.text(")\r\n");
    }
}

/// The names above a name.
fn ancestors(name: &MailboxName) -> impl Iterator<Item = &str> {
    let text = name.as_str();
    text.match_indices('/').filter_map(|(at, _)| text.get(..at))
}
