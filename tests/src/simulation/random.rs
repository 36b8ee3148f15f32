//! Chances drawn from a seed.

/// SplitMix64 (Steele, Lea, Flood 2014): the same seed gives the same draws.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The draws of a seed, and of a purpose within it.
    pub const fn new(seed: u64, purpose: u64) -> Self {
        Random(seed ^ purpose.wrapping_mul(0xd6e8_feb8_6659_fd93))
    }

    /// The next 64 bits.
    pub const fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// One of `first` to `last`, both included.
    pub const fn between(&mut self, first: u64, last: u64) -> u64 {
        first + self.draw() % (last - first + 1)
    }

    /// An index below `count`.
    pub const fn index(&mut self, count: usize) -> usize {
        (self.draw() % count as u64) as usize
    }

    /// One of these.
    pub const fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.index(of.len())]
    }

    /// Whether a chance of so many in a hundred comes true.
    pub const fn percent(&mut self, chance: u64) -> bool {
        self.draw() % 100 < chance
    }
}
