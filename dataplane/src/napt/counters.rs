//! What a NAPT tells of itself: written by its RX core with plain stores, read by
//! anybody.

use crate::stats::Counter;

/// The counters of one NAPT on one core, and under which names people see them.
macro_rules! counters {
    ($($(#[doc = $text:literal])+ $field:ident = $name:literal;)*) => {
        /// The counters and gauges of one NAPT on one core.
        #[derive(Debug, Default)]
        pub struct NaptCounters { $($(#[doc = $text])+ pub $field: Counter,)* }

        impl NaptCounters {
            /// Each with its name, in kebab-case.
            pub fn all(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$(($name, self.$field.get()),)*].into_iter()
            }
        }
    };
}

counters! {
    /// Inside hosts that have a block, now.
    hosts = "hosts";
    /// Blocks that are given, now.
    blocks = "blocks";
    /// Mappings, now.
    mappings = "mappings";
    /// Sessions, now.
    sessions = "sessions";
    /// Packets translated on their way out.
    translated_out = "translated-out";
    /// Packets translated on their way in.
    translated_in = "translated-in";
    /// ICMP errors translated, either way.
    errors_translated = "errors-translated";
    /// Sessions opened so far.
    opened = "sessions-opened";
    /// Blocks given so far.
    given = "blocks-given";
    /// Blocks taken back so far.
    taken_back = "blocks-taken-back";
    /// New sessions refused because their host has as many blocks or sessions as it
    /// may have.
    host_limit = "host-limit";
    /// New sessions refused because their host opens too many in a second.
    rate_limit = "rate-limit";
    /// New sessions refused because no block or no place is left.
    exhausted = "exhausted";
    /// Lines of the block log that were lost.
    log_lost = "log-lost";
}
