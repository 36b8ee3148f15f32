//! Reasons that are counted: the enum is the counter is the operator's text.

/// Defines an enum of reasons, each with the name of its counter (kebab-case) and
/// the sentence that explains it to people, in one table.
///
/// ```
/// homeport_wire::reasons! {
///     /// Why a parcel came back.
///     Returned {
///         NoSuchStreet = "no-such-street", "The street does not exist.";
///         Refused = "refused", "Nobody wanted it.";
///     }
/// }
/// assert_eq!(Returned::ALL.len(), Returned::COUNT);
/// assert_eq!(Returned::from_u8(1).map(Returned::counter), Some("refused"));
/// assert_eq!(Returned::from_u8(2), None);
/// ```
#[macro_export]
macro_rules! reasons {
    ($(#[$meta:meta])* $name:ident { $($variant:ident = $counter:literal, $text:literal;)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum $name { $(#[doc = $text] $variant,)* }

        impl $name {
            /// Every reason, in the order of the counters.
            pub const ALL: &[$name] = &[$($name::$variant,)*];

            /// How many reasons there are.
            pub const COUNT: usize = Self::ALL.len();

            /// The name of the counter, in kebab-case.
            pub const fn counter(self) -> &'static str {
                match self { $($name::$variant => $counter,)* }
            }

            /// The sentence for people.
            pub const fn text(self) -> &'static str {
                match self { $($name::$variant => $text,)* }
            }

            /// The reason with this number.
            pub fn from_u8(number: u8) -> ::core::option::Option<Self> {
                Self::ALL.get(usize::from(number)).copied()
            }
        }

        impl $crate::serde::Serialize for $name {
            fn serialize<S: $crate::serde::Serializer>(
                &self,
                serializer: S,
            ) -> ::core::result::Result<S::Ok, S::Error> {
                serializer.serialize_str(self.counter())
            }
        }

        impl<'de> $crate::serde::Deserialize<'de> for $name {
            fn deserialize<D: $crate::serde::Deserializer<'de>>(
                deserializer: D,
            ) -> ::core::result::Result<Self, D::Error> {
                $crate::text::deserialize(deserializer, "the name of a reason", |name| {
                    Self::ALL.iter().find(|one| one.counter() == name).copied()
                })
            }
        }
    };
}
