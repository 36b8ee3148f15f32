//! What an agent draws from beyond its inputs: chance, and what its keys compute.
//!
//! Who notes it can run the agent again without its seed and without its keys: what
//! was drawn is then given. What a key says about a message of somebody else is noted
//! as right or wrong, never as the authenticator that would have been right; what it
//! computes for a message of ours has been on the wire already.

use alloc::vec::Vec;

use rand_chacha::ChaCha8Rng;
use rand_core::{RngCore, SeedableRng};
use serde::{Deserialize, Serialize};

use crate::message::{AuthenticationKind, Located, MessageWriter, Received};
use crate::security::lanes::{Precomputed, Wanted};
use crate::security::{Authenticator, MobilitySecurityAssociation};

/// What was drawn, each kind in its order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Drawn {
    /// Random numbers: nonces, challenges, jitter.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub numbers: Vec<u32>,
    /// Whether an authenticator of somebody else was right.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub authentic: Vec<bool>,
    /// The authenticators of what was sent.
    #[serde(skip_serializing_if = "Vec::is_empty", with = "crate::hex::list")]
    pub authenticators: Vec<Vec<u8>>,
}

impl Drawn {
    /// How many there are, of all kinds.
    pub fn len(&self) -> usize {
        self.numbers.len() + self.authentic.len() + self.authenticators.len()
    }

    /// Whether nothing was drawn.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Where draws come from.
#[derive(Debug)]
pub struct Draws {
    source: Source,
    /// What keys will be asked for.
    precomputed: Precomputed,
}

#[derive(Debug)]
enum Source {
    Live(ChaCha8Rng),
    Noted(ChaCha8Rng, Drawn),
    Given(Given),
}

/// What is drawn in a run that is repeated.
#[derive(Debug, Default)]
struct Given {
    drawn: Drawn,
    /// How many of each kind were drawn already.
    at: [usize; 3],
    /// How many more were asked for than there were.
    missing: usize,
}

/// How far what was drawn differs from what was given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Differing {
    /// Draws that were asked for and not there.
    pub missing: usize,
    /// Draws that were there and not asked for.
    pub left: usize,
}

impl Draws {
    fn of(source: Source) -> Self {
        Draws { source, precomputed: Precomputed::default() }
    }

    /// Computes authenticators that will be asked for, together and before that.
    pub(crate) fn precompute(&mut self, wanted: &[Wanted<'_>]) {
        match &self.source {
            Source::Live(_) | Source::Noted(..) => self.precomputed.compute(wanted),
            Source::Given(_) => {}
        }
    }

    /// Whether authenticators of what is sent may be computed at any time: nobody notes
    /// them, and nobody gives them.
    pub(crate) const fn are_live(&self) -> bool {
        matches!(self.source, Source::Live(_))
    }

    /// From this seed, which must be unpredictable, and the associations' keys.
    pub fn live(seed: [u8; 32]) -> Draws {
        Draws::of(Source::Live(ChaCha8Rng::from_seed(seed)))
    }

    /// The same, and each is noted.
    pub fn noted(seed: [u8; 32]) -> Draws {
        Draws::of(Source::Noted(ChaCha8Rng::from_seed(seed), Drawn::default()))
    }

    /// What another run has drawn. Of what is not there, numbers are zero,
    /// authenticators are zeros, and nothing is authentic.
    pub fn given(drawn: Drawn) -> Draws {
        Draws::of(Source::Given(Given { drawn, ..Given::default() }))
    }

    /// Gives what the next input will draw.
    pub(crate) fn give(&mut self, drawn: Drawn) {
        self.source = Source::Given(Given { drawn, ..Given::default() });
    }

    /// What was drawn since this was asked last; nothing if it is not noted.
    pub(crate) fn take(&mut self) -> Drawn {
        match &mut self.source {
            Source::Noted(_, drawn) => core::mem::take(drawn),
            Source::Live(_) | Source::Given(_) => Drawn::default(),
        }
    }

    /// How far the draws since [`give`](Self::give) differ from what was given.
    pub(crate) fn differing(&self) -> Differing {
        match &self.source {
            Source::Given(given) => Differing {
                missing: given.missing,
                left: given.drawn.len().saturating_sub(given.at.iter().sum()),
            },
            Source::Live(_) | Source::Noted(..) => Differing::default(),
        }
    }

    /// An unpredictable number.
    pub(crate) fn number(&mut self) -> u32 {
        match &mut self.source {
            Source::Live(random) => random.next_u32(),
            Source::Noted(random, drawn) => {
                let number = random.next_u32();
                drawn.numbers.push(number);
                number
            }
            Source::Given(Given { drawn, at: [at, ..], missing }) => {
                next(&drawn.numbers, at, missing).copied().unwrap_or_default()
            }
        }
    }

    /// The same, of twice the length.
    pub(crate) fn long_number(&mut self) -> u64 {
        let (high, low) = (self.number(), self.number());
        u64::from(high) << 32 | u64::from(low)
    }

    /// Whether an authentication of a message is right.
    pub(crate) fn is_authentic<'b, T>(
        &mut self,
        received: &Received<'b, T>,
        authentication: &Located<'b>,
        association: &MobilitySecurityAssociation,
    ) -> bool {
        let Draws { source, precomputed } = self;
        let mut verify = || {
            received.verify_by(authentication, association, |covered| {
                let known = precomputed.get(association, covered);
                known.unwrap_or_else(|| association.authenticator(covered))
            })
        };
        match source {
            Source::Live(_) => verify(),
            Source::Noted(_, drawn) => {
                let authentic = verify();
                drawn.authentic.push(authentic);
                authentic
            }
            Source::Given(Given { drawn, at: [_, at, _], missing }) => {
                next(&drawn.authentic, at, missing).copied().unwrap_or_default()
            }
        }
    }

    /// Adds an authentication extension over all that a message has so far.
    pub(crate) fn authenticate(
        &mut self,
        writer: &mut MessageWriter,
        kind: AuthenticationKind,
        association: &MobilitySecurityAssociation,
    ) {
        match &mut self.source {
            Source::Live(_) => {
                writer.authenticate(kind, association);
            }
            Source::Noted(_, drawn) => writer.authenticate_by(kind, association, |covered| {
                let authenticator = association.authenticator(covered);
                drawn.authenticators.push(authenticator.as_bytes().to_vec());
                authenticator
            }),
            Source::Given(Given { drawn, at: [.., at], missing }) => {
                writer.authenticate_by(kind, association, |_| {
                    let len = association.algorithm.authenticator_len();
                    let given = next(&drawn.authenticators, at, missing);
                    given
                        .map_or_else(|| Authenticator::zeros(len), |bytes| Authenticator::of(bytes))
                });
            }
        }
    }
}

fn next<'a, T>(given: &'a [T], at: &mut usize, missing: &mut usize) -> Option<&'a T> {
    let next = given.get(*at);
    match next {
        Some(_) => *at += 1,
        None => *missing += 1,
    }
    next
}
