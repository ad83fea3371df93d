//! Chance that repeats: everything random in a simulation comes from one seed.

use std::ops::RangeInclusive;
use std::time::Duration;

/// A small generator (SplitMix64): good enough for latencies, and its whole state is one number.
#[derive(Clone, Debug)]
pub(super) struct Random {
    state: u64,
}

/// The alphabet of Kubernetes' generated names: no vowels, so no words.
const NAME_ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

impl Random {
    /// A stream of its own for each purpose, so that one draw more in one place changes nothing in another.
    pub(super) fn new(seed: u64, purpose: &str) -> Random {
        let state = purpose
            .bytes()
            .fold(seed ^ 0x9e37_79b9_7f4a_7c15, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
        Random { state }
    }

    pub(super) fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.state ^ (self.state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Uniform below `bound`, which must not be zero. The bias of the remainder is far below what a simulation can show.
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        assert!(bound > 0, "nothing is below zero");
        self.next() % bound
    }

    /// Uniform in whole milliseconds.
    pub(super) fn duration(&mut self, range: &RangeInclusive<Duration>) -> Duration {
        let (low, high) = (range.start().as_millis(), range.end().as_millis());
        let span = u64::try_from(high.saturating_sub(low)).unwrap_or(u64::MAX - 1);
        *range.start() + Duration::from_millis(self.below(span + 1))
    }

    /// Whether an event of probability 1/n happens; never for zero.
    pub(super) fn one_in(&mut self, n: u32) -> bool {
        n > 0 && self.below(u64::from(n)) == 0
    }

    /// A UID as the API server makes them.
    pub(super) fn uid(&mut self) -> String {
        let (high, low) = (self.next(), self.next());
        format!(
            "{:08x}-{:04x}-4{:03x}-{:04x}-{:012x}",
            high >> 32,
            (high >> 16) & 0xffff,
            high & 0xfff,
            0x8000 | (low >> 48) & 0x3fff,
            low & 0xffff_ffff_ffff
        )
    }

    /// The five letters behind a `generateName`.
    pub(super) fn name_suffix(&mut self) -> String {
        let letters = u64::try_from(NAME_ALPHABET.len()).unwrap_or(1);
        (0..5).map(|_| char::from(NAME_ALPHABET[usize::try_from(self.below(letters)).unwrap_or(0)])).collect()
    }
}
