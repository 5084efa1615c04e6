//! Parameters of a call, made from octets by the schema of the method.

use super::{
    lexicon::Lexicon,
    schema::{fields, layout},
    words::{Place, Words},
};
use crate::source::Source;
use ipc::capnp::{
    introspect::{Type, TypeVariant},
    schema::{EnumSchema, StructSchema},
    schema_capnp::field,
};

/// Structs inside structs that are filled; deeper ones stay empty.
const DEPTH: usize = 5;
/// Entries of a list of structs.
const MAX_ENTRIES: usize = 3_000;

/// A message being filled.
pub(crate) struct Filler<'f, 's> {
    pub(crate) words: &'f mut Words,
    pub(crate) source: &'f mut Source<'s>,
    pub(crate) lexicon: &'f Lexicon,
    /// Objects of the caller in the message, by their number in its export table.
    pub(crate) exports: Vec<u32>,
}

impl Filler<'_, '_> {
    /// A struct behind a pointer.
    pub(crate) fn structure(&mut self, pointer: usize, of: StructSchema, depth: usize) {
        let (data, pointers, _) = layout(of);
        let place = self.words.structure(pointer, data, pointers);
        self.fill(place, of, depth);
    }

    fn fill(&mut self, place: Place, of: StructSchema, depth: usize) {
        if depth > DEPTH {
            return;
        }
        let mut chosen = None;
        if let (_, _, Some((octet, variants))) = layout(of) {
            let variant = u16::try_from(self.source.below(usize::from(variants))).unwrap_or(0);
            self.words.put(place, octet, &variant.to_le_bytes());
            chosen = Some(variant);
        }
        for field in fields(of) {
            let proto = field.get_proto();
            let variant = proto.get_discriminant_value();
            if variant != field::NO_DISCRIMINANT && Some(variant) != chosen {
                continue;
            }
            let name = proto.get_name().ok().and_then(|name| name.to_str().ok()).unwrap_or("");
            match (proto.which(), field.get_type().which()) {
                (Ok(field::Group(_)), TypeVariant::Struct(raw)) => {
                    self.fill(place, StructSchema::new(raw), depth + 1);
                }
                (Ok(field::Slot(slot)), kind) => {
                    self.slot(place, slot.get_offset() as usize, name, kind, depth);
                }
                _other => {}
            }
        }
    }

    fn slot(&mut self, place: Place, offset: usize, name: &str, kind: TypeVariant, depth: usize) {
        let pointer = place.pointers + offset;
        if let Some(octets) = width(&kind) {
            let number = self.number(&kind).to_le_bytes();
            self.words.put(place, offset * octets, &number[..octets]);
            return;
        }
        match kind {
            TypeVariant::Bool if self.source.octet() & 1 != 0 => {
                self.words.put_bit(place, offset);
            }
            TypeVariant::Text => {
                let text = self.lexicon.text(name, self.source);
                self.words.text(pointer, &text);
            }
            TypeVariant::Data => {
                let data = self.lexicon.data(name, self.source);
                self.words.data(pointer, &data);
            }
            TypeVariant::Struct(raw) => {
                self.structure(pointer, StructSchema::new(raw), depth + 1);
            }
            TypeVariant::Capability => {
                // One in sixteen is missing.
                let choice = self.source.octet();
                if choice & 15 != 15 {
                    let index = u32::try_from(self.exports.len()).unwrap_or(0);
                    self.exports.push(1 + u32::from(choice & 3));
                    self.words.capability(pointer, index);
                }
            }
            TypeVariant::List(of) => self.list(pointer, name, of, depth),
            _void => {}
        }
    }

    fn list(&mut self, pointer: usize, name: &str, of: Type, depth: usize) {
        let count = match self.source.octet() {
            small @ ..240 => 1 + usize::from(small % 3),
            240..248 => 0,
            _many => self.source.below(MAX_ENTRIES),
        };
        let kind = of.which();
        if let Some(octets) = width(&kind) {
            let code = [0, 2, 3, 0, 4, 0, 0, 0, 5][octets];
            let number = self.number(&kind).to_le_bytes();
            let all: Vec<u8> = number[..octets].repeat(count);
            self.words.numbers(pointer, code, count, &all);
            return;
        }
        match kind {
            TypeVariant::Struct(raw) => {
                let of = StructSchema::new(raw);
                let (data, pointers, _) = layout(of);
                let places = self.words.structures(pointer, count, data, pointers);
                // A long list is long because of its length: the first few say enough.
                for place in places.into_iter().take(8) {
                    self.fill(place, of, depth + 1);
                }
            }
            TypeVariant::Text | TypeVariant::Data => {
                let first = self.words.pointers(pointer, count);
                for at in (first..first + count).take(8) {
                    if matches!(kind, TypeVariant::Text) {
                        let text = self.lexicon.text(name, self.source);
                        self.words.text(at, &text);
                    } else {
                        let data = self.lexicon.data(name, self.source);
                        self.words.data(at, &data);
                    }
                }
            }
            _other => {}
        }
    }

    fn number(&mut self, kind: &TypeVariant) -> u64 {
        if let TypeVariant::Enum(raw) = kind {
            let known = EnumSchema::new(*raw).get_enumerants().map_or(0, |all| all.len());
            // One more than there are: what a newer peer might say.
            return self.source.below(usize::from(known) + 1) as u64;
        }
        Lexicon::number(self.source)
    }
}

/// Octets of a number.
fn width(kind: &TypeVariant) -> Option<usize> {
    match kind {
        TypeVariant::Int8 | TypeVariant::UInt8 => Some(1),
        TypeVariant::Int16 | TypeVariant::UInt16 | TypeVariant::Enum(_) => Some(2),
        TypeVariant::Int32 | TypeVariant::UInt32 | TypeVariant::Float32 => Some(4),
        TypeVariant::Int64 | TypeVariant::UInt64 | TypeVariant::Float64 => Some(8),
        _other => None,
    }
}
