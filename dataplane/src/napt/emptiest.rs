//! How much each of several has left, and which has most: a tournament, of which the
//! winner is always known.

/// Counts with the place of the highest.
pub(super) struct Emptiest {
    counts: Box<[u32]>,
    /// A tree in an array: the winner among all is at 1, those of its halves at 2 and
    /// 3, and so on; the places themselves are its leaves.
    winners: Box<[u32]>,
}

impl Emptiest {
    /// So many places, each with `count`.
    pub(super) fn new(places: usize, count: u32) -> Self {
        let leaves = places.next_power_of_two();
        let counts = vec![count; places].into_boxed_slice();
        let winners = vec![0; 2 * leaves].into_boxed_slice();
        let mut emptiest = Emptiest { counts, winners };
        for place in 0..leaves {
            if let Some(leaf) = emptiest.winners.get_mut(leaves + place) {
                *leaf = place as u32;
            }
        }
        for node in (1..leaves).rev() {
            emptiest.play(node);
        }
        emptiest
    }

    /// How much a place has; nothing if there is no such place.
    pub(super) fn count(&self, place: usize) -> u32 {
        self.counts.get(place).copied().unwrap_or_default()
    }

    pub(super) fn set(&mut self, place: usize, count: u32) {
        let Some(known) = self.counts.get_mut(place) else { return };
        *known = count;
        let mut node = (self.winners.len() / 2 + place) / 2;
        while node > 0 {
            self.play(node);
            node /= 2;
        }
    }

    /// The first of those that have most, if they have anything.
    pub(super) fn best(&self) -> Option<usize> {
        let best = self.winners.get(1).copied()? as usize;
        (self.count(best) > 0).then_some(best)
    }

    fn play(&mut self, node: usize) {
        let (left, right) = (self.winners.get(2 * node), self.winners.get(2 * node + 1));
        let (Some(&left), Some(&right)) = (left, right) else { return };
        let winner =
            if self.count(right as usize) > self.count(left as usize) { right } else { left };
        if let Some(place) = self.winners.get_mut(node) {
            *place = winner;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_winner_is_the_first_of_the_highest(
            places in 1usize..40,
            steps in proptest::collection::vec((0usize..40, 0u32..6), 0..100),
        ) {
            let mut emptiest = Emptiest::new(places, 5);
            let mut model = vec![5; places];
            for (place, count) in steps {
                emptiest.set(place, count);
                if let Some(known) = model.get_mut(place) {
                    *known = count;
                }
                let most = *model.iter().max().unwrap();
                let first = model.iter().position(|count| *count == most);
                prop_assert_eq!(emptiest.best(), first.filter(|_| most > 0));
                let known: Vec<u32> = (0..places).map(|place| emptiest.count(place)).collect();
                prop_assert_eq!(&known, &model);
            }
        }
    }
}
