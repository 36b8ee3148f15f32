//! Numbers in an order that looks random, without a list of them.

/// A bijection that leaves no pattern.
pub(crate) fn mixed(number: u64) -> u64 {
    let mut word = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    word = (word ^ word >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ word >> 31
}

/// The numbers below `len`, each once, in an order that looks random: a Feistel
/// network over the next power of four, walked until a number is below.
pub(crate) struct Order {
    len: u64,
    half_bits: u32,
    key: u64,
    next: u64,
}

impl Order {
    pub(crate) fn new(len: usize, key: u64) -> Self {
        let len = len as u64;
        let bits = 64 - len.saturating_sub(1).leading_zeros();
        Order { len, half_bits: bits.div_ceil(2).max(1), key, next: 0 }
    }

    fn permuted(&self, number: u64) -> u64 {
        let mask = (1 << self.half_bits) - 1;
        let (mut left, mut right) = (number >> self.half_bits, number & mask);
        for round in 0..4u64 {
            let fed = mixed(right ^ self.key << 32 ^ round << 56) & mask;
            (left, right) = (right, left ^ fed);
        }
        left << self.half_bits | right
    }
}

impl Iterator for Order {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        while self.next < 1 << (2 * self.half_bits) {
            let number = self.permuted(self.next);
            self.next += 1;
            if number < self.len {
                return Some(number as usize);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_has_every_number_once() {
        for len in [1, 2, 3, 1_000, 4_096] {
            let mut numbers: Vec<usize> = Order::new(len, 3).collect();
            if len > 3 {
                assert!(!numbers.is_sorted());
            }
            numbers.sort_unstable();
            assert!(numbers.into_iter().eq(0..len));
        }
    }
}
