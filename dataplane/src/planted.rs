//! Bugs to be found: each is one that implementations like this one have had. They are
//! compiled in with the feature `planted-bugs` only, one at a time is selected, and the
//! simulation must find it. No program that people run has the feature.

use core::sync::atomic::{AtomicU8, Ordering};

/// A planted bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Bug {
    /// A visitor is found by its home address, whosever tunnel the packet came from.
    VisitorOfAnyHomeAgent = 1,
    /// With minimal encapsulation the reverse tunnel's source is not checked.
    MinimalSourceUnchecked,
    /// The budget of a network for registration messages is used up for ever.
    BudgetNeverRefills,
    /// A packet that finds the queue to the control core full is not counted.
    FullQueueNotCounted,
    /// The buffer of a packet with a wrong outer source does not come back.
    RefusedBufferLeaks,
}

impl Bug {
    /// Every one.
    pub const ALL: &[Bug] = &[
        Bug::VisitorOfAnyHomeAgent,
        Bug::MinimalSourceUnchecked,
        Bug::BudgetNeverRefills,
        Bug::FullQueueNotCounted,
        Bug::RefusedBufferLeaks,
    ];

    /// Its name, in kebab-case.
    pub const fn name(self) -> &'static str {
        match self {
            Bug::VisitorOfAnyHomeAgent => "visitor-of-any-home-agent",
            Bug::MinimalSourceUnchecked => "minimal-source-unchecked",
            Bug::BudgetNeverRefills => "budget-never-refills",
            Bug::FullQueueNotCounted => "full-queue-not-counted",
            Bug::RefusedBufferLeaks => "refused-buffer-leaks",
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
