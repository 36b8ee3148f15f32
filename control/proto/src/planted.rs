//! Bugs to be found: each is one that implementations like this one have had. They are
//! compiled in with the feature `planted-bugs` only, one at a time is selected, and the
//! simulation must find it. No program that people run has the feature.

use core::sync::atomic::{AtomicU8, Ordering};

/// A planted bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Bug {
    /// An identification that equals the last accepted one is fresh.
    EqualIdentification = 1,
    /// With the binding of a node its last accepted identification is forgotten.
    MarkLostWithBinding,
    /// Behind a clock that was set back, what was accepted before is fresh once more.
    SteppedMarkForgotten,
    /// A reply goes to the first pending request of its home address, whoever asked.
    ReplyToOtherPending,
    /// A visitor replaces another one that has its home address in another home network.
    VisitorByAddressAlone,
    /// A binding that expires stays in the forwarding table.
    ExpiryKeepsEntry,
    /// A renewal with a shorter lifetime leaves the timer where it was.
    EarlierEndNotArmed,
    /// A node that moves to an address of its own is still reached at the old one too.
    OldCareOfAddressKept,
    /// A clock that was set back costs the timer that is due next.
    TimerLostAtStep,
    /// An address that was given back is anybody's at once.
    HoldDownIgnored,
    /// A new session gets the address that it names, whoever has it.
    AddressOfTwo,
    /// A session that is bound loses its binding when it registers again, as at a move.
    SessionLostAtMove,
    /// That an address is a session's from now on is not written down.
    StoredSessionLost,
    /// A session that visits takes the place of any other one of its station.
    OneSessionPerStation,
    /// The challenge that a node has answered last may be answered once more.
    ChallengeAnsweredTwice,
}

impl Bug {
    /// Every one.
    pub const ALL: &[Bug] = &[
        Bug::EqualIdentification,
        Bug::MarkLostWithBinding,
        Bug::SteppedMarkForgotten,
        Bug::ReplyToOtherPending,
        Bug::VisitorByAddressAlone,
        Bug::ExpiryKeepsEntry,
        Bug::EarlierEndNotArmed,
        Bug::OldCareOfAddressKept,
        Bug::TimerLostAtStep,
        Bug::HoldDownIgnored,
        Bug::AddressOfTwo,
        Bug::SessionLostAtMove,
        Bug::StoredSessionLost,
        Bug::OneSessionPerStation,
        Bug::ChallengeAnsweredTwice,
    ];

    /// Its name, in kebab-case.
    pub const fn name(self) -> &'static str {
        match self {
            Bug::EqualIdentification => "equal-identification",
            Bug::MarkLostWithBinding => "mark-lost-with-binding",
            Bug::SteppedMarkForgotten => "stepped-mark-forgotten",
            Bug::ReplyToOtherPending => "reply-to-other-pending",
            Bug::VisitorByAddressAlone => "visitor-by-address-alone",
            Bug::ExpiryKeepsEntry => "expiry-keeps-entry",
            Bug::EarlierEndNotArmed => "earlier-end-not-armed",
            Bug::OldCareOfAddressKept => "old-care-of-address-kept",
            Bug::TimerLostAtStep => "timer-lost-at-step",
            Bug::HoldDownIgnored => "hold-down-ignored",
            Bug::AddressOfTwo => "address-of-two",
            Bug::SessionLostAtMove => "session-lost-at-move",
            Bug::StoredSessionLost => "stored-session-lost",
            Bug::OneSessionPerStation => "one-session-per-station",
            Bug::ChallengeAnsweredTwice => "challenge-answered-twice",
        }
    }
}

static SELECTED: AtomicU8 = AtomicU8::new(0);

/// Selects a bug for the whole process, or none.
pub fn select(bug: Option<Bug>) {
    SELECTED.store(bug.map_or(0, |bug| bug as u8), Ordering::Relaxed);
}

/// Whether this bug is selected.
pub(crate) fn is(bug: Bug) -> bool {
    SELECTED.load(Ordering::Relaxed) == bug as u8
}
