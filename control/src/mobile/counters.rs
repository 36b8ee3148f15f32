//! Counters by table: field, name and text for people in one place.

/// Defines a struct of counters, their names and the text for people in one table.
macro_rules! counters {
    ($(#[$meta:meta])* $name:ident { $($field:ident = $text:literal,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct $name { $(#[doc = $text] pub $field: u64,)* }

        impl $name {
            /// Each counter: name, text, count.
            pub fn all(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> {
                [$((stringify!($field), $text, self.$field),)*].into_iter()
            }
        }
    };
}
pub(super) use counters;
