//! Replies that wait for their authenticators.
//!
//! Who has several requests at hand answers them all and then has the authenticators of
//! the replies computed together, which takes a quarter of the time. Until then a
//! reply has blanks where they go. What else is sent meanwhile waits with them, as packets
//! stay in their order: a revocation must not come before the reply that it takes back.

use alloc::vec::Vec;

use smallvec::SmallVec;

use super::TOGETHER;
use crate::security::lanes::{self, ReadyKey, Wanted};
use crate::{Payload, Transmit};

/// Where in a message authenticators go, and under which keys: each covers all in front
/// of it, so that it needs the one before.
pub(crate) type Blanks = SmallVec<[(ReadyKey, usize); 2]>;

#[derive(Debug, Default)]
pub(super) struct Replies {
    are_held: bool,
    held: Vec<(Transmit, Blanks)>,
}

impl Replies {
    /// Holds what is sent from now on.
    pub(super) const fn hold_back(&mut self) {
        self.are_held = true;
    }

    /// Whether they are held, and may have blanks.
    pub(super) const fn are_held(&self) -> bool {
        self.are_held
    }

    /// Whether there is none.
    pub(super) const fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    pub(super) fn hold(&mut self, packet: Transmit, blanks: Blanks) {
        self.held.push((packet, blanks));
    }

    /// Fills all blanks in and gives the packets in their order; none is held any more.
    pub(super) fn sign(&mut self) -> impl Iterator<Item = Transmit> {
        self.are_held = false;
        let most = self.held.iter().map(|(_, blanks)| blanks.len()).max().unwrap_or(0);
        let mut signed: SmallVec<[[u8; 16]; TOGETHER]> = SmallVec::new();
        for nth in 0..most {
            let wanted: SmallVec<[Wanted<'_>; TOGETHER]> =
                self.held.iter().filter_map(|one| wanted(one, nth)).collect();
            signed.clear();
            lanes::each(&wanted, |_, authenticator| signed.push(authenticator));
            drop(wanted);
            let blanks = self.held.iter_mut().filter_map(|one| blank(one, nth));
            blanks.zip(&signed).for_each(|(blank, signed)| *blank = *signed);
        }
        self.held.drain(..).map(|(reply, _)| reply)
    }
}

/// What the `nth` authenticator of a reply covers, and its key.
fn wanted((reply, blanks): &(Transmit, Blanks), nth: usize) -> Option<Wanted<'_>> {
    let ((key, at), Payload::Udp { data, .. }) = (blanks.get(nth)?, &reply.payload) else {
        return None;
    };
    Some((key.clone(), data.get(..*at)?))
}

/// Where it goes.
fn blank((reply, blanks): &mut (Transmit, Blanks), nth: usize) -> Option<&mut [u8; 16]> {
    let ((_, at), Payload::Udp { data, .. }) = (blanks.get(nth)?, &mut reply.payload) else {
        return None;
    };
    data.get_mut(*at..)?.first_chunk_mut()
}
