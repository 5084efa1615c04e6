//! Our readers of header values against `mail-parser`: two that were written apart and agree.
//!
//! Only well-formed values are compared: on malformed ones both may choose, and what ours choose is
//! said by their own tests.

#![forbid(unsafe_code)]

use mail_parser::MessageParser;
use message::{Job, Limits};
use proptest::prelude::*;

fn ours(text: &str) -> message::Facts {
    let mut job = Job::new(Limits::default());
    job.push(text.as_bytes());
    job.finish()
}

/// A whole message of some header fields.
fn with_header(fields: &str) -> String {
    format!("{fields}\r\n\r\nbody\r\n")
}

const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn dates(
        (day, month, year) in (1u32..=28, 0usize..12, 1970u32..2100),
        (hour, minute, second) in (0u32..24, 0u32..60, 0u32..60),
        zone_hour in 0i32..=12,
        zone_minute in prop::sample::select(vec![0i32, 30, 45]),
        (west, weekday) in (any::<bool>(), any::<bool>()),
    ) {
        let sign = if west { '-' } else { '+' };
        let name = if weekday { "Sat, " } else { "" };
        let date = format!(
            "{name}{day} {} {year} {hour:02}:{minute:02}:{second:02} \
             {sign}{zone_hour:02}{zone_minute:02}",
            MONTHS[month]
        );
        let text = with_header(&format!("Date: {date}"));
        let theirs = MessageParser::default().parse(&text).unwrap();
        let expected = theirs.date().unwrap().to_timestamp();
        prop_assert_eq!(ours(&text).sent.map(|at| at.at.seconds()), Some(expected), "{}", date);
    }

    #[test]
    fn subjects_in_encoded_words(
        words in prop::collection::vec("[a-zA-Z0-9äöüßéñ€日本]{1,12}", 1..6),
    ) {
        let subject = words.join(" ");
        let encoded = message::encoded_word::encode(&subject);
        let text = with_header(&format!("Subject: {encoded}"));
        let theirs = MessageParser::default().parse(&text).unwrap();
        prop_assert_eq!(theirs.subject(), Some(subject.as_str()), "{}", encoded);
        prop_assert_eq!(ours(&text).subject, subject, "{}", encoded);
    }

    #[test]
    fn message_ids(left in "[a-z0-9]{1,10}\\.[a-z0-9]{1,10}", right in "[a-z0-9]{1,20}\\.example") {
        let text = with_header(&format!("Message-ID: <{left}@{right}>"));
        let theirs = MessageParser::default().parse(&text).unwrap();
        let id = theirs.message_id().unwrap().to_owned();
        let found = ours(&text).message_id.unwrap();
        prop_assert!(found.contains(&id), "{} in {}", id, found);
    }
}
