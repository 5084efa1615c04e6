//! The frames of Cap'n Proto's RPC (rpc.capnp) as a hostile client makes them.

use super::words::{Place, Words};

pub(crate) const CALL: u16 = 2;
pub(crate) const RETURN: u16 = 3;

/// The object a call is made on.
#[derive(Debug, Clone)]
pub(crate) enum Target {
    /// One the server exported under this number.
    Export(u32),
    /// One in the answer to an earlier question, which may be still to come.
    Answer(u32, Vec<u16>),
}

/// A message of a kind whose body has these sections; gives the body.
fn message(words: &mut Words, kind: u16, data: u16, pointers: u16) -> Place {
    let message = words.structure(0, 1, 1);
    words.put(message, 0, &kind.to_le_bytes());
    words.structure(message.pointers, data, pointers)
}

pub(crate) fn bootstrap(question: u32) -> Vec<u8> {
    let mut words = Words::new();
    let body = message(&mut words, 8, 1, 1);
    words.put(body, 0, &question.to_le_bytes());
    words.frame()
}

/// A call; `params` writes the parameters behind a pointer and gives the exports in them.
pub(crate) fn call(
    question: u32,
    target: &Target,
    interface: u64,
    method: u16,
    params: impl FnOnce(&mut Words, usize) -> Vec<u32>,
) -> Vec<u8> {
    let mut words = Words::new();
    let body = message(&mut words, CALL, 3, 3);
    words.put(body, 0, &question.to_le_bytes());
    words.put(body, 4, &method.to_le_bytes());
    words.put(body, 8, &interface.to_le_bytes());
    let on = words.structure(body.pointers, 1, 1);
    match target {
        Target::Export(id) => words.put(on, 0, &id.to_le_bytes()),
        Target::Answer(question, path) => {
            words.put(on, 4, &1u16.to_le_bytes());
            let promised = words.structure(on.pointers, 1, 1);
            words.put(promised, 0, &question.to_le_bytes());
            let ops = words.structures(promised.pointers, path.len(), 1, 0);
            for (op, pointer) in ops.into_iter().zip(path) {
                words.put(op, 0, &1u16.to_le_bytes());
                words.put(op, 2, &pointer.to_le_bytes());
            }
        }
    }
    let payload = words.structure(body.pointers + 1, 0, 2);
    let exports = params(&mut words, payload.pointers);
    let table = words.structures(payload.pointers + 1, exports.len(), 1, 1);
    for (entry, export) in table.into_iter().zip(exports) {
        words.put(entry, 0, &1u16.to_le_bytes());
        words.put(entry, 4, &export.to_le_bytes());
    }
    words.frame()
}

pub(crate) fn finish(question: u32, release: bool) -> Vec<u8> {
    let mut words = Words::new();
    let body = message(&mut words, 4, 1, 0);
    words.put(body, 0, &question.to_le_bytes());
    // The default is true and travels inverted.
    if !release {
        words.put_bit(body, 32);
    }
    words.frame()
}

pub(crate) fn release(export: u32, references: u32) -> Vec<u8> {
    let mut words = Words::new();
    let body = message(&mut words, 6, 1, 0);
    words.put(body, 0, &export.to_le_bytes());
    words.put(body, 4, &references.to_le_bytes());
    words.frame()
}

/// An answer to a call of the server: empty results, or an exception.
pub(crate) fn answer(question: u32, well: bool) -> Vec<u8> {
    let mut words = Words::new();
    let body = message(&mut words, RETURN, 2, 1);
    words.put(body, 0, &question.to_le_bytes());
    if well {
        words.structure(body.pointers, 0, 2);
    } else {
        words.put(body, 6, &1u16.to_le_bytes());
        let exception = words.structure(body.pointers, 1, 2);
        words.text(exception.pointers, b"no");
    }
    words.frame()
}

/// A message of any kind with small numbers in it and pointers that mostly lead somewhere.
pub(crate) fn any(kind: u16, numbers: [u8; 12]) -> Vec<u8> {
    let mut words = Words::new();
    let body = message(&mut words, kind, 3, 3);
    for (at, number) in numbers.into_iter().enumerate() {
        words.put(body, 2 * at, &u16::from(number).to_le_bytes());
    }
    for at in 0..3 {
        let inner = words.structure(body.pointers + at, 1, 1);
        words.put(inner, 0, &numbers[at..at + 4]);
        let [two, ..] = numbers;
        if two & 1 == 0 {
            words.structures(inner.pointers, usize::from(two & 3), 1, 1);
        }
    }
    words.frame()
}
