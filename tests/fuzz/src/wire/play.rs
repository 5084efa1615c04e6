//! Octets become a conversation: calls on whatever objects earlier answers give, with values that
//! make sense and values that make none, between frames that are cut, bent and forged.

use super::{
    fill::Filler,
    frames::{self, Target},
    lexicon::Lexicon,
    peer::Peer,
    schema::{self, Interface},
};
use crate::source::Source;
use std::{sync::OnceLock, time::Duration};

/// Frames of one conversation.
const MAX_FRAMES: usize = 80;
/// A server that says nothing for so long has nothing to say now.
const QUIET: Duration = Duration::from_millis(2);
/// How long the server is waited for where it takes nothing.
const PATIENCE: Duration = Duration::from_millis(200);

pub(crate) fn interfaces() -> &'static [Interface] {
    // Schemas are not Sync by declaration, though they are tables: a copy for each thread.
    thread_local! {
        static ALL: &'static [Interface] = Box::leak(schema::all().into_boxed_slice());
    }
    ALL.with(|all| *all)
}

/// The interface of a name, where one name is one interface.
pub(crate) fn named(name: &str) -> &'static Interface {
    interfaces().iter().find(|i| i.name == name).unwrap_or_else(|| panic!("no interface {name}"))
}

/// The methods an object has, with the interface each one belongs to.
fn methods(of: u64) -> Vec<(u64, &'static schema::Method)> {
    let mut found = Vec::new();
    let mut next = Some(of);
    while let Some(interface) = next.and_then(|id| interfaces().iter().find(|i| i.id == id)) {
        found.extend(interface.methods.iter().map(|method| (interface.id, method)));
        next = interface.above;
    }
    found
}

struct Held {
    target: Target,
    interface: u64,
}

/// A conversation under way.
struct Play<'p, 's> {
    peer: &'p mut Peer,
    source: Source<'s>,
    lexicon: &'p Lexicon,
    held: Vec<Held>,
    next: u32,
    last: Vec<u8>,
}

/// Plays an input on a connection whose bootstrap object has this interface.
pub(crate) fn play(peer: &mut Peer, door: &str, input: &[u8], lexicon: &Lexicon) {
    let interface = named(door).id;
    let held = vec![Held { target: Target::Answer(0, Vec::new()), interface }];
    let mut play =
        Play { peer, source: Source::new(input), lexicon, held, next: 1, last: Vec::new() };
    play.send(frames::bootstrap(0));
    for _ in 0..MAX_FRAMES {
        if play.source.is_empty() || play.peer.over {
            break;
        }
        play.step();
    }
    let questions = play.next as usize;
    play.peer.hear(QUIET, Duration::from_millis(60), |peer| peer.answers.len() >= questions);
    let asked = std::mem::take(&mut play.peer.asked);
    if !asked.is_empty() {
        for question in asked {
            play.send(frames::answer(question, true));
        }
        play.peer.hear(QUIET, Duration::from_millis(20), |_| false);
    }
}

impl Play<'_, '_> {
    fn send(&mut self, frame: Vec<u8>) {
        self.peer.send(&frame, PATIENCE);
        self.last = frame;
    }

    fn step(&mut self) {
        match self.source.octet() {
            ..190 => {
                let frame = self.call();
                self.send(frame);
            }
            190..200 => {
                let question = self.question();
                let release = self.source.octet() & 1 == 0;
                self.send(frames::finish(question, release));
            }
            200..205 => {
                let (export, count) = (self.question(), self.source.octet());
                self.send(frames::release(export, u32::from(count)));
            }
            205..210 => {
                let question = self.question();
                self.send(frames::bootstrap(question));
            }
            // A call whose bits were turned.
            210..225 => {
                let mut frame = self.call();
                for _ in 0..=self.source.octet() % 3 {
                    let bit = self.source.below(frame.len() * 8);
                    frame[bit / 8] ^= 1 << (bit % 8);
                }
                self.send(frame);
            }
            225..230 => {
                let again = self.last.clone();
                self.send(again);
            }
            // Answers to what the server asked, and to what it did not.
            230..240 => {
                self.peer.hear(QUIET, Duration::from_millis(20), |_| false);
                let question = self.peer.asked.pop().unwrap_or_else(|| self.question());
                let well = self.source.octet() & 1 == 0;
                self.send(frames::answer(question, well));
            }
            240..248 => {
                let kind = u16::from(self.source.octet() % 16);
                let numbers = self.source.array();
                self.send(frames::any(kind, numbers));
            }
            248..252 => {
                let length = self.source.below(64);
                let raw = self.source.octets(length).to_vec();
                self.send(raw);
            }
            // Half a frame, and nothing more.
            252.. => {
                let frame = self.call();
                let cut = self.source.below(frame.len());
                self.send(frame[..cut].to_vec());
                self.peer.half_close();
                self.source.rest();
            }
        }
    }

    fn question(&mut self) -> u32 {
        u32::from(self.source.octet()) % (self.next + 1)
    }

    fn call(&mut self) -> Vec<u8> {
        // The newest object is the deepest one.
        let back = usize::from(self.source.octet().saturating_sub(120)) % self.held.len();
        let held = &self.held[self.held.len() - 1 - back];
        let known = methods(held.interface);
        if known.is_empty() {
            return frames::call(self.next, &held.target, held.interface, 0, |_, _| Vec::new());
        }
        let (interface, method) = known[self.source.below(known.len())];
        let question = self.next;
        self.next += 1;
        let (source, lexicon) = (&mut self.source, self.lexicon);
        let frame = frames::call(question, &held.target, interface, method.number, |words, at| {
            let mut filler = Filler { words, source, lexicon, exports: Vec::new() };
            filler.structure(at, method.params, 0);
            filler.exports
        });
        if let Some(results) = method.results {
            self.held.extend(schema::objects(results).into_iter().map(|given| Held {
                target: Target::Answer(question, given.path),
                interface: given.interface,
            }));
        }
        frame
    }
}

/// A call of the first method of an interface with the values that make most sense.
pub(crate) fn call_on(
    target: &Target,
    question: u32,
    door: &str,
    source: &mut Source<'_>,
) -> Vec<u8> {
    static NOTHING: OnceLock<Lexicon> = OnceLock::new();
    let lexicon = NOTHING.get_or_init(Lexicon::default);
    let (interface, method) = methods(named(door).id)[0];
    frames::call(question, target, interface, method.number, |words, at| {
        let mut filler = Filler { words, source, lexicon, exports: Vec::new() };
        filler.structure(at, method.params, 0);
        filler.exports
    })
}

/// The same on the bootstrap object, which question 0 asked for.
pub(crate) fn simple_call(question: u32, door: &str) -> Vec<u8> {
    call_on(&Target::Answer(0, Vec::new()), question, door, &mut Source::new(&[]))
}

/// Makes the simplest call that a server of this interface has to answer, and waits for it.
pub(crate) fn is_served(peer: &mut Peer, door: &str, wait: Duration) -> bool {
    peer.send(&frames::bootstrap(0), wait);
    peer.send(&simple_call(1, door), wait);
    peer.hear(wait, wait, |peer| peer.answer_to(1).is_some());
    peer.answer_to(1).is_some()
}
