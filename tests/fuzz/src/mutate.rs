//! Damage that knows nothing of what it damages.

use rand::seq::IndexedRandom as _;
use rand::{Rng as _, RngCore, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

/// Longest input that is made, in bytes.
const MAX_LEN: usize = 1 << 18;

/// Numbers at which lengths and counts go wrong.
const NUMBERS: [u64; 22] = [
    0,
    1,
    2,
    15,
    16,
    17,
    31,
    32,
    127,
    128,
    255,
    256,
    0x7fff,
    0x8000,
    0xffff,
    0x1_0000,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    0x1_0000_0000,
    u64::MAX >> 1,
    u64::MAX,
];

/// The ends of what a number may be.
const EXTREMES: [u64; 8] = [0, 1, 1 << 31, 1 << 32, u64::MAX >> 1, 1 << 63, u64::MAX - 1, u64::MAX];

/// What opens a level, in one format or another.
const OPENINGS: [&[u8]; 14] = [
    b"\x91",
    b"\x81\xc0",
    b"\x81\xa1a",
    b"\xdd\x00\x00\x00\x01",
    b"\x82\xad__fobs_type__\xa5tuple\xad__fobs_data__\x91",
    b"[",
    b"{\"a\":",
    b"[[",
    b"- ",
    b"? ",
    b"{a: ",
    b"&a [*a, ",
    b"/*",
    b"\"\\",
];

/// Bytes that mean something somewhere.
const WORDS: [&[u8]; 40] = [
    b"\xc0",
    b"\xc1",
    b"\xc4\x00",
    b"\xc6\xff\xff\xff\xff",
    b"\xd9\xff",
    b"\xdb\xff\xff\xff\xff",
    b"\xdc\xff\xff",
    b"\xdd\xff\xff\xff\xff",
    b"\xde\xff\xff",
    b"\xdf\xff\xff\xff\xff",
    b"\xcb\x7f\xf8\x00\x00\x00\x00\x00\x00",
    b"\xcb\xff\xf0\x00\x00\x00\x00\x00\x00",
    b"\xcf\xff\xff\xff\xff\xff\xff\xff\xff",
    b"\xd3\x80\x00\x00\x00\x00\x00\x00\x00",
    b"\xc7\x00\x01",
    b"\x80",
    b"\x90",
    b"\xa0",
    b"\x64\x00",
    b"\xf0\x9f\x92\xa9",
    b"\xed\xa0\x80",
    b"__fobs_type__",
    b"__fobs_data__",
    b"datum_id",
    b"PK\x01\x02",
    b"PK\x03\x04",
    b"PK\x05\x06",
    b"PK\x06\x06",
    b"../",
    b"/",
    b"\0",
    b"\r\n",
    b"\n  ",
    b"!!binary ",
    b"<<: *a",
    b"1e999",
    b"-0",
    b"\\u0000",
    b"{$x}",
    b"00000000-0000-0000-0000-000000000000",
];

/// Makes inputs out of inputs; the same seed makes the same ones.
#[derive(Debug)]
pub struct Mutator {
    rng: ChaCha8Rng,
}

impl Mutator {
    /// Draws from this seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { rng: ChaCha8Rng::seed_from_u64(seed) }
    }

    /// A number below `end`; 0 if there is none.
    pub fn below(&mut self, end: usize) -> usize {
        if end == 0 { 0 } else { self.rng.random_range(0..end) }
    }

    /// Whether the one time out of `times` has come.
    pub fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    /// One of these.
    pub fn one_of<'a, T>(&mut self, among: &'a [T]) -> Option<&'a T> {
        among.choose(&mut self.rng)
    }

    /// A number at which something may go wrong, or one near it, or any.
    pub fn number(&mut self) -> u64 {
        let number = *NUMBERS.choose(&mut self.rng).unwrap_or(&0);
        match self.below(4) {
            0 => number.wrapping_add(1),
            1 => number.wrapping_sub(1),
            2 => self.rng.next_u64() >> self.below(64),
            _ => number,
        }
    }

    /// A number at one end of what it may be.
    pub fn extreme(&mut self) -> u64 {
        EXTREMES.choose(&mut self.rng).copied().unwrap_or(u64::MAX)
    }

    /// Any bytes, at most `most`.
    pub fn bytes(&mut self, most: usize) -> Vec<u8> {
        let mut bytes = vec![0; self.below(most + 1)];
        self.rng.fill_bytes(&mut bytes);
        bytes
    }

    /// Some text, often one that means something.
    pub fn text(&mut self) -> String {
        match self.below(4) {
            0 => String::from_utf8_lossy(&self.bytes(24)).into_owned(),
            1 => "x".repeat(self.below(3000)),
            _ => String::from_utf8_lossy(self.one_of(&WORDS).copied().unwrap_or_default()).into_owned(),
        }
    }

    /// Damages an input in a few places. `other` is another one, to take parts from.
    pub fn damage(&mut self, input: &mut Vec<u8>, other: &[u8]) {
        for _ in 0..=self.below(3) {
            self.damage_once(input, other);
        }
        input.truncate(MAX_LEN);
    }

    fn damage_once(&mut self, input: &mut Vec<u8>, other: &[u8]) {
        let at = self.below(input.len() + 1);
        let end = (at + self.below(64)).min(input.len());
        match self.below(13) {
            0 | 1 if at < input.len() => input[at] ^= 1 << self.below(8),
            2 if at < input.len() => input[at] = self.rng.random(),
            3 => input.truncate(at),
            4 => drop(input.drain(at..end)),
            5 => {
                let part = input[at..end].to_vec();
                for _ in 0..=self.below(3) {
                    input.splice(at..at, part.iter().copied());
                }
            }
            6 => {
                let from = self.below(other.len() + 1);
                let part = &other[from..(from + self.below(256)).min(other.len())];
                let upto = if self.once_in(2) { end } else { at };
                input.splice(at..upto, part.iter().copied());
            }
            7 | 8 => self.lie(input, at),
            9 => {
                let word = self.one_of(&WORDS).copied().unwrap_or_default();
                let upto = if self.once_in(2) { (at + word.len()).min(input.len()) } else { at };
                input.splice(at..upto, word.iter().copied());
            }
            10 if self.once_in(8) => {
                let opening = self.one_of(&OPENINGS).copied().unwrap_or_default();
                let times = [70, 200, 5_000, 50_000];
                let times = self.one_of(&times).copied().unwrap_or(1);
                input.splice(at..at, opening.repeat(times.min(MAX_LEN / opening.len())));
            }
            11 => {
                let part = self.bytes(16);
                input.splice(at..at, part);
            }
            12 if !input.is_empty() => {
                let (one, other) = (self.below(input.len()), self.below(input.len()));
                input.swap(one, other);
            }
            _ => input.extend_from_slice(other.get(..self.below(other.len() + 1)).unwrap_or_default()),
        }
    }

    /// Puts a number where a length may stand, in one of the usual forms.
    fn lie(&mut self, input: &mut [u8], at: usize) {
        let len = input.len() as u64;
        let number = match self.below(3) {
            0 => len.wrapping_add(self.below(5) as u64).wrapping_sub(2),
            _ => self.number(),
        };
        let (big, little) = (number.to_be_bytes(), number.to_le_bytes());
        let width = 1 << self.below(4);
        let bytes = if self.once_in(2) { &big[8 - width..] } else { &little[..width] };
        for (to, from) in input[at..].iter_mut().zip(bytes) {
            *to = *from;
        }
    }
}
