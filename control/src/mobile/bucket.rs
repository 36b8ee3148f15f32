//! A token bucket: so many at once, then so many a second.

use homeport_proto::Instant;

const SECOND: u64 = 1_000_000_000;

/// Tokens, which come back with time.
#[derive(Clone, Copy, Debug)]
pub struct Bucket {
    /// Time between two tokens, in nanoseconds.
    interval: u64,
    /// How many there can be.
    burst: u64,
    /// When the bucket is full.
    full_at: Instant,
}

impl Bucket {
    /// A full bucket of `burst` tokens, of which `per_second` come back.
    pub const fn new(burst: u64, per_second: u64) -> Self {
        let per_second = if per_second == 0 { 1 } else { per_second };
        Bucket { interval: SECOND / per_second, burst, full_at: Instant(0) }
    }

    /// Takes a token; `false` when there is none.
    pub fn take(&mut self, now: Instant) -> bool {
        let Instant(full_at) = self.full_at.max(now);
        let next = full_at.saturating_add(self.interval);
        if next.saturating_sub(now.0) > self.interval.saturating_mul(self.burst) {
            return false;
        }
        self.full_at = Instant(next);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_at_once_then_so_many_a_second() {
        let mut bucket = Bucket::new(3, 2);
        let takes = |bucket: &mut Bucket, at| (0..9).filter(|_| bucket.take(Instant(at))).count();
        assert_eq!(takes(&mut bucket, 7), 3);
        assert_eq!(takes(&mut bucket, 7 + SECOND / 2 - 1), 0);
        assert_eq!(takes(&mut bucket, 7 + SECOND / 2), 1);
        assert_eq!(takes(&mut bucket, 7 + SECOND * 9), 3);
    }
}
