//! Cap'n Proto messages made word by word: what is well-formed, and what is nearly so. The library
//! makes only honest ones, and none from a schema that is known at run time alone.

/// One segment under construction. Word 0 is its root pointer.
#[derive(Debug)]
pub(crate) struct Words(Vec<[u8; 8]>);

/// Where the two sections of a struct begin.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    pub(crate) data: usize,
    pub(crate) pointers: usize,
}

impl Words {
    pub(crate) fn new() -> Self {
        Self(vec![[0; 8]])
    }

    /// The message as it travels, and the words of its segment.
    pub(crate) fn frame(&self) -> Vec<u8> {
        let count = u32::try_from(self.0.len()).expect("messages of a test are small");
        let mut out = vec![0; 4];
        out.extend(count.to_le_bytes());
        out.extend(self.0.iter().flatten());
        out
    }

    fn point(&mut self, pointer: usize, kind: u64, upper: u64) -> usize {
        let target = self.0.len();
        let offset = (target - pointer - 1) as u64;
        self.0[pointer] = (kind | offset << 2 | upper << 32).to_le_bytes();
        target
    }

    /// A struct behind a pointer.
    pub(crate) fn structure(&mut self, pointer: usize, data: u16, pointers: u16) -> Place {
        if data == 0 && pointers == 0 {
            // An empty struct points nowhere, by convention one word back.
            self.0[pointer] = [0xfc, 0xff, 0xff, 0xff, 0, 0, 0, 0];
            return Place { data: self.0.len(), pointers: self.0.len() };
        }
        let at = self.point(pointer, 0, u64::from(data) | u64::from(pointers) << 16);
        self.0.resize(at + usize::from(data) + usize::from(pointers), [0; 8]);
        Place { data: at, pointers: at + usize::from(data) }
    }

    /// A list of structs; gives the place of each.
    pub(crate) fn structures(
        &mut self,
        pointer: usize,
        count: usize,
        data: u16,
        pointers: u16,
    ) -> Vec<Place> {
        let each = usize::from(data) + usize::from(pointers);
        let tag = self.point(pointer, 1, 7 | ((count * each) as u64) << 3);
        self.0.push([0; 8]);
        self.0[tag] =
            ((count as u64) << 2 | u64::from(data) << 32 | u64::from(pointers) << 48).to_le_bytes();
        self.0.resize(tag + 1 + count * each, [0; 8]);
        let place = |n| {
            let data_at = tag + 1 + n * each;
            Place { data: data_at, pointers: data_at + usize::from(data) }
        };
        (0..count).map(place).collect()
    }

    /// A list of pointers; gives the first one.
    pub(crate) fn pointers(&mut self, pointer: usize, count: usize) -> usize {
        let at = self.point(pointer, 1, 6 | (count as u64) << 3);
        self.0.resize(at + count, [0; 8]);
        at
    }

    /// A list of numbers; `code` is 2 for octets, 3 for two of them, 4 for four, 5 for eight.
    pub(crate) fn numbers(&mut self, pointer: usize, code: u64, count: usize, octets: &[u8]) {
        let at = self.point(pointer, 1, code | (count as u64) << 3);
        self.0.resize(at + octets.len().div_ceil(8), [0; 8]);
        for (n, chunk) in octets.chunks(8).enumerate() {
            self.0[at + n][..chunk.len()].copy_from_slice(chunk);
        }
    }

    pub(crate) fn data(&mut self, pointer: usize, octets: &[u8]) {
        self.numbers(pointer, 2, octets.len(), octets);
    }

    pub(crate) fn text(&mut self, pointer: usize, octets: &[u8]) {
        let ended = [octets, &[0]].concat();
        self.numbers(pointer, 2, ended.len(), &ended);
    }

    /// A reference to an entry of the message's capability table.
    pub(crate) fn capability(&mut self, pointer: usize, index: u32) {
        self.0[pointer] = (3 | u64::from(index) << 32).to_le_bytes();
    }

    /// Writes a number into a data section, at an offset in octets.
    pub(crate) fn put(&mut self, place: Place, octet: usize, number: &[u8]) {
        let (word, within) = (place.data + octet / 8, octet % 8);
        self.0[word][within..within + number.len()].copy_from_slice(number);
    }

    pub(crate) fn put_bit(&mut self, place: Place, bit: usize) {
        self.0[place.data + bit / 64][bit / 8 % 8] |= 1 << (bit % 8);
    }
}

/// The words of a frame's first segment, as far as what an answer needs is concerned.
#[derive(Debug)]
pub(crate) struct Heard {
    words: Vec<[u8; 8]>,
}

impl Heard {
    /// Octets of a whole frame whose beginning this is: None if more has to come to know it, Err if
    /// it declares what no message of ours is.
    pub(crate) fn length(head: &[u8], most: usize) -> Result<Option<usize>, String> {
        let Some((count, sizes)) = head.split_first_chunk::<4>() else { return Ok(None) };
        let segments = u32::from_le_bytes(*count) as usize + 1;
        if segments > 512 {
            return Err(format!("{segments} segments"));
        }
        let table = (4 + 4 * segments).next_multiple_of(8);
        if head.len() < table {
            return Ok(None);
        }
        let words: usize = sizes
            .chunks_exact(4)
            .take(segments)
            .map(|size| u32::from_le_bytes(size.try_into().expect("four octets")) as usize)
            .sum();
        if words > most {
            return Err(format!("a frame of {words} words"));
        }
        Ok(Some(table + 8 * words))
    }

    /// From a whole frame.
    pub(crate) fn new(frame: &[u8]) -> Self {
        let segments = u32::from_le_bytes([frame[0], frame[1], frame[2], frame[3]]) as usize + 1;
        let table = (4 + 4 * segments).next_multiple_of(8);
        let words = frame[table..].as_chunks::<8>().0.to_vec();
        Self { words }
    }

    fn word(&self, at: usize) -> u64 {
        self.words.get(at).map_or(0, |word| u64::from_le_bytes(*word))
    }

    /// Where the struct behind a pointer begins, and its data words; none for null and far ones.
    fn follow(&self, pointer: usize) -> Option<(usize, usize)> {
        let value = self.word(pointer);
        if value == 0 || value & 3 != 0 {
            return None;
        }
        let offset = usize::try_from((value & 0xffff_ffff) >> 2).ok()?;
        Some((pointer + 1 + offset, (value >> 32 & 0xffff) as usize))
    }

    /// Which kind of RPC message it is, and the first two data words of what it holds.
    pub(crate) fn kind(&self) -> Option<(u16, u64, u64)> {
        let (message, data) = self.follow(0)?;
        let kind = (self.word(message) & 0xffff) as u16;
        let (body, words) = self.follow(message + data)?;
        let second = if words > 1 { self.word(body + 1) } else { 0 };
        Some((kind, if words > 0 { self.word(body) } else { 0 }, second))
    }
}
