//! What the lock-free primitives are made of, behind one switch: the standard
//! library's, or loom's, which runs a model under every interleaving and every
//! value that a weak memory may return (`RUSTFLAGS="--cfg loom"`).
#![cfg_attr(loom, allow(unsafe_code, reason = "the cells of models"))]

pub(crate) use std::sync::atomic::Ordering;

#[cfg(loom)]
pub(crate) use loom::{
    cell::UnsafeCell,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, fence},
    },
};

#[cfg(not(loom))]
pub(crate) use std::sync::{
    Arc,
    atomic::{AtomicU32, AtomicU64, fence},
};

/// On a cache line of its own (two, as adjacent lines are fetched in pairs), so
/// that writing it disturbs nobody who reads its neighbour.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct Padded<T>(pub(crate) T);

/// [`std::cell::UnsafeCell`] with loom's interface: loom's own reports every
/// access that is not ordered with a write.
#[cfg(not(loom))]
#[derive(Debug)]
#[repr(transparent)]
pub(crate) struct UnsafeCell<T>(std::cell::UnsafeCell<T>);

#[cfg(not(loom))]
impl<T> UnsafeCell<T> {
    pub(crate) const fn new(value: T) -> Self {
        UnsafeCell(std::cell::UnsafeCell::new(value))
    }

    /// Gives a pointer to read through.
    pub(crate) fn with<R>(&self, read: impl FnOnce(*const T) -> R) -> R {
        read(self.0.get())
    }

    /// Gives a pointer to write through.
    pub(crate) fn with_mut<R>(&self, write: impl FnOnce(*mut T) -> R) -> R {
        write(self.0.get())
    }
}

/// A word of memory whose accesses other atomics order. It is an atomic, so that a
/// process that breaks the order in shared memory causes nothing undefined.
#[cfg(not(loom))]
#[derive(Debug)]
#[repr(transparent)]
pub(crate) struct Word(AtomicU64);

#[cfg(not(loom))]
impl Word {
    pub(crate) const fn new(value: u64) -> Self {
        Word(AtomicU64::new(value))
    }

    #[inline]
    pub(crate) fn load(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    #[inline]
    pub(crate) fn store(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }
}

/// In models it is a cell: loom never lets a relaxed load see a later store, but it
/// reports every access to a cell that is not ordered.
#[cfg(loom)]
#[derive(Debug)]
pub(crate) struct Word(UnsafeCell<u64>);

// SAFETY: models run on one thread; loom reports what would be a race.
#[cfg(loom)]
unsafe impl Sync for Word {}

#[cfg(loom)]
impl Word {
    pub(crate) fn new(value: u64) -> Self {
        Word(UnsafeCell::new(value))
    }

    pub(crate) fn load(&self) -> u64 {
        // SAFETY: as for `Sync`.
        self.0.with(|word| unsafe { *word })
    }

    pub(crate) fn store(&self, value: u64) {
        // SAFETY: as for `Sync`.
        self.0.with_mut(|word| unsafe { *word = value });
    }
}

/// A bug that a model must find. Each names what it leaves out; `planted` is
/// always false outside of the models, and compiles to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mutant {
    /// A reader tells that it is quiescent without releasing what it read.
    QuiescentRelaxed,
    /// A reader reads the epoch without acquiring the unlinks before it.
    EpochRelaxed,
    /// A reader comes online without a fence before its first look-up.
    OnlineUnfenced,
    /// Reclamation looks at the readers without a fence after the unlink.
    ReclaimUnfenced,
    /// An entry is freed when readers have seen its own epoch, not a later one.
    FreedTooEarly,
    /// A replacement empties the slot before it fills it.
    ReplaceInTwoSteps,
    /// An entry is published without releasing its contents.
    PublishRelaxed,
    /// A key that moves leaves its first bucket before it is in its second.
    MovedAfterwards,
    /// A route that changes empties its slots before it fills them.
    RouteInTwoSteps,
    /// A route is published without releasing its value.
    RouteRelaxed,
    /// A node of routes is published without releasing its slots.
    ChildPublishedRelaxed,
    /// A node of routes is retired before no slot names it.
    NodeRetiredEarly,
    /// The epoch of routes is raised before the change.
    RouteEpochEarly,
    /// The epoch of routes is raised without releasing the change.
    RouteEpochRelaxed,
    /// A message is published without releasing its bytes.
    HeadRelaxed,
    /// Room is given back without releasing the reads of it.
    TailRelaxed,
    /// A message is published before its bytes are written.
    HeadEarly,
    /// A consumer announces its sleep without a fence before its last look.
    SleepUnfenced,
    /// A producer looks for a sleeper without a fence after publishing.
    WakeUnfenced,
}

/// Whether a bug is planted in this run.
#[cfg(not(all(test, loom)))]
#[inline(always)]
pub(crate) const fn planted(_: Mutant) -> bool {
    false
}

#[cfg(all(test, loom))]
pub(crate) use models::planted;

/// What the models share.
#[cfg(all(test, loom))]
pub(crate) mod models {
    use std::{
        cell::Cell,
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering},
        },
    };

    use super::Mutant;

    thread_local! {
        /// Loom runs all threads of a model on the thread that called it, so the
        /// standard thread-local is the model's, and each test has its own.
        static PLANTED: Cell<Option<Mutant>> = const { Cell::new(None) };
    }

    pub(crate) fn planted(mutant: Mutant) -> bool {
        PLANTED.get() == Some(mutant)
    }

    struct Unplant;

    impl Drop for Unplant {
        fn drop(&mut self) {
            PLANTED.set(None);
        }
    }

    /// Runs a model under all its interleavings, and asserts that there were at
    /// least `minimum`: a model that explores few proves little.
    pub(crate) fn explore(name: &str, minimum: usize, model: impl Fn() + Send + Sync + 'static) {
        let count = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&count);
        let mut builder = loom::model::Builder::new();
        builder.max_branches = 100_000;
        builder.check(move || {
            counted.fetch_add(1, Ordering::Relaxed);
            model();
        });
        let count = count.load(Ordering::Relaxed);
        println!("{name}: {count} interleavings");
        assert!(count >= minimum, "{name}: only {count} interleavings, wanted {minimum}");
    }

    /// Runs a model with a bug planted: it must panic.
    pub(crate) fn explore_mutant(mutant: Mutant, model: impl Fn() + Send + Sync + 'static) {
        let _unplant = Unplant;
        PLANTED.set(Some(mutant));
        let mut builder = loom::model::Builder::new();
        builder.max_branches = 100_000;
        builder.check(model);
    }
}
