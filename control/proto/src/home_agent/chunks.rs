//! Records by number: growing takes one chunk more, and moves none.
//!
//! A few records are there before they are needed. To write the first words of memory
//! that is not in the processor's cache takes nothing; to read them back at once does,
//! and whoever gets a record does that. A run of them costs little more than one.

use alloc::vec::Vec;

/// Records of a chunk.
const CHUNK: usize = 4_096;
/// How many are made at a time: a divisor of [`CHUNK`].
const RUN: usize = 16;

/// A list that only grows.
#[derive(Debug)]
pub(super) struct Chunks<T> {
    chunks: Vec<Vec<T>>,
    len: u32,
}

impl<T> Default for Chunks<T> {
    fn default() -> Self {
        Chunks { chunks: Vec::new(), len: 0 }
    }
}

impl<T: Default> Chunks<T> {
    /// How many there are: the number of the next.
    pub(super) const fn len(&self) -> u32 {
        self.len
    }

    pub(super) fn get(&self, number: u32) -> Option<&T> {
        let place = number as usize;
        let record = self.chunks.get(place / CHUNK)?.get(place % CHUNK);
        record.filter(|_| number < self.len)
    }

    pub(super) fn get_mut(&mut self, number: u32) -> Option<&mut T> {
        let place = number as usize;
        let record = self.chunks.get_mut(place / CHUNK)?.get_mut(place % CHUNK);
        record.filter(|_| number < self.len)
    }

    /// Adds a record and gives its number.
    pub(super) fn push(&mut self, record: T) -> u32 {
        let number = self.len;
        let place = number as usize;
        self.len += 1;
        if place.is_multiple_of(CHUNK) {
            self.chunks.push(Vec::with_capacity(CHUNK));
        }
        if let Some(chunk) = self.chunks.last_mut() {
            if place.is_multiple_of(RUN) {
                chunk.extend((0..RUN).map(|_| T::default()));
            }
            if let Some(place) = chunk.get_mut(place % CHUNK) {
                *place = record;
            }
        }
        number
    }

    /// The records, in the order of their numbers.
    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.chunks.iter().flatten().take(self.len as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_records_that_were_added_are_there() {
        let mut chunks = Chunks::default();
        let count = 4_099;
        for number in 0..count {
            assert_eq!(chunks.get(number), None);
            assert_eq!(chunks.get_mut(number), None);
            assert_eq!(chunks.push(number + 7), number);
            assert_eq!(chunks.get(number), Some(&(number + 7)));
        }
        *chunks.get_mut(4).unwrap() = 1;
        assert!(chunks.iter().copied().eq((7..11).chain([1]).chain(12..count + 7)));
        assert_eq!(chunks.get(u32::MAX), None);
    }
}
