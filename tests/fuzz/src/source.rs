//! The octets of an input, taken from the front; behind the end everything is zero, so that every
//! prefix of an input is an input.

/// What is left of an input.
#[derive(Debug, Clone)]
pub struct Source<'a> {
    left: &'a [u8],
}

impl<'a> Source<'a> {
    /// All of it.
    #[must_use]
    pub fn new(input: &'a [u8]) -> Self {
        Self { left: input }
    }

    /// Whether nothing is left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.left.is_empty()
    }

    /// The next octet.
    pub fn octet(&mut self) -> u8 {
        self.array::<1>()[0]
    }

    /// The next octets, as many as an integer has.
    pub fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut out = [0; N];
        let taken = self.octets(N);
        out[..taken.len()].copy_from_slice(taken);
        out
    }

    /// A number below `bound`, from one octet where that is enough.
    pub fn below(&mut self, bound: usize) -> usize {
        let number = if bound <= 256 {
            usize::from(self.octet())
        } else {
            usize::from(u16::from_le_bytes(self.array()))
        };
        number % bound.max(1)
    }

    /// At most so many octets, fewer at the end.
    pub fn octets(&mut self, most: usize) -> &'a [u8] {
        let (taken, left) = self.left.split_at(most.min(self.left.len()));
        self.left = left;
        taken
    }

    /// One of some.
    pub fn pick<'t, T>(&mut self, of: &'t [T]) -> &'t T {
        &of[self.below(of.len())]
    }

    /// All that is left.
    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.left)
    }
}

/// Cuts octets into pieces of sizes that follow from a seed: what a network does to a stream.
pub fn pieces(octets: &[u8], seed: u8) -> impl Iterator<Item = &[u8]> {
    let (mut left, mut state) = (octets, u32::from(seed).wrapping_mul(0x9e37_79b9) | 1);
    std::iter::from_fn(move || {
        if left.is_empty() {
            return None;
        }
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        // Mostly single octets and small pieces, where machines keep state; now and then a large one.
        let wish = if state.is_multiple_of(5) { state % 400 } else { state % 4 };
        let (piece, rest) = left.split_at((wish as usize + 1).min(left.len()));
        left = rest;
        Some(piece)
    })
}
