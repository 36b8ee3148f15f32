//! From TOML to sections, with every error of a file and not only the first.
//!
//! A deserializer stops at its first error. So a section here reads each of its
//! keys by itself, notes what is wrong with it, and reads on; whatever key is
//! left over is unknown. `section!` makes the struct, its reader and its JSON
//! schema from one list of keys.

use std::ops::{Deref, Range};

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Serialize;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::problem::Problems;

/// A value and where it stands in the file. Two are equal when their values are.
#[derive(Clone, Debug)]
pub struct At<T> {
    value: T,
    span: Range<usize>,
}

impl<T> At<T> {
    /// `value`, standing at `span`; a default stands where its table does.
    pub fn new(value: T, span: Range<usize>) -> Self {
        At { value, span }
    }

    /// Where it stands, in bytes.
    pub fn span(&self) -> Range<usize> {
        self.span.clone()
    }
}

impl<T> Deref for At<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: PartialEq> PartialEq for At<T> {
    fn eq(&self, other: &Self) -> bool {
        self.value == other.value
    }
}

impl<T: Serialize> Serialize for At<T> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.value.serialize(serializer)
    }
}

impl<T: JsonSchema> JsonSchema for At<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        T::schema_name()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        generator.subschema_for::<T>()
    }
}

/// What a key of a section is read into.
pub trait FromToml: Sized {
    /// Reads a value, or notes what is wrong with it. A list or an optional section
    /// with something wrong in it gives what is right, so that the rest is checked
    /// too; what was noted sees to it that nobody uses it.
    fn from_toml(value: &Spanned<DeValue<'_>>, problems: &mut Problems) -> Option<Self>;

    /// What it is when the key is absent; `None` when the key must be there.
    fn absent() -> Option<Self> {
        None
    }
}

impl<T: FromToml> FromToml for At<T> {
    fn from_toml(value: &Spanned<DeValue<'_>>, problems: &mut Problems) -> Option<Self> {
        Some(At::new(T::from_toml(value, problems)?, value.span()))
    }
}

impl<T: FromToml> FromToml for Option<T> {
    fn from_toml(value: &Spanned<DeValue<'_>>, problems: &mut Problems) -> Option<Self> {
        Some(T::from_toml(value, problems))
    }

    fn absent() -> Option<Self> {
        Some(None)
    }
}

impl<T: FromToml> FromToml for Vec<T> {
    fn from_toml(value: &Spanned<DeValue<'_>>, problems: &mut Problems) -> Option<Self> {
        let DeValue::Array(items) = value.get_ref() else {
            // The likely slip: [port] for [[port]], and "a" for ["a"].
            let help = match value.get_ref() {
                DeValue::Table(_) => "write the header in double brackets, as in [[port]]",
                _ => "put it in brackets, as in [\"a\", \"b\"]",
            };
            let kind = value.get_ref().type_str();
            problems.add(
                value.span(),
                format!("a list is wanted here, and this is a {kind}"),
                help,
            );
            return None;
        };
        Some(items.iter().filter_map(|item| T::from_toml(item, problems)).collect())
    }

    fn absent() -> Option<Self> {
        Some(Vec::new())
    }
}

/// The keys of one table while they are read.
pub struct Keys<'t, 'i> {
    table: &'t DeTable<'i>,
    span: Range<usize>,
    section: &'static str,
    known: Vec<&'static str>,
}

impl<'t, 'i> Keys<'t, 'i> {
    /// The keys of `table`, a `section` in the words of the file.
    pub fn new(table: &'t DeTable<'i>, span: Range<usize>, section: &'static str) -> Self {
        Keys { table, span, section, known: Vec::new() }
    }

    /// The value of `key`; where it is absent, the default.
    pub fn take<T: FromToml>(
        &mut self,
        key: &'static str,
        default: Option<T>,
        problems: &mut Problems,
    ) -> Option<T> {
        self.known.push(key);
        if let Some(value) = self.table.get(key) {
            return T::from_toml(value, problems);
        }
        let value = default.or_else(T::absent);
        if value.is_none() {
            let message = format!("{} lacks the key `{key}`", self.section);
            problems.add(self.span.clone(), message, format!("add {key} = …"));
        }
        value
    }

    /// Notes every key that was not taken.
    pub fn finish(self, problems: &mut Problems) {
        for (key, _) in self.table.iter() {
            let name: &str = key.get_ref();
            if self.known.contains(&name) {
                continue;
            }
            let help = match nearest(name, &self.known) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("{} knows: {}", self.section, self.known.join(", ")),
            };
            let message = format!("unknown key `{}` in {}", name.escape_debug(), self.section);
            problems.add(key.span(), message, help);
        }
    }
}

/// The known word that `name` is most likely a slip of.
pub fn nearest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    known
        .iter()
        .map(|word| (strsim::damerau_levenshtein(name, word), *word))
        .filter(|(distance, word)| *distance <= word.len().div_ceil(3))
        .min()
        .map(|(_, word)| word)
}

/// Defines a section of the file: the struct, how it is read, and its schema.
/// A key without `=` must be there, unless its type is an `Option` or a `Vec`.
macro_rules! section {
    ($(#[$meta:meta])* $name:ident as $title:literal {
        $($(#[$key_meta:meta])* $key:ident: $type:ty $(= $default:expr)?,)*
    }) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, serde::Serialize, schemars::JsonSchema)]
        #[serde(deny_unknown_fields)]
        #[schemars(transform = $name::with_defaults)]
        pub struct $name { $($(#[$key_meta])* pub $key: $type,)* }

        impl $name {
            /// Reads it from a table that stands at `span`.
            pub fn from_table(
                table: &toml::de::DeTable<'_>,
                span: std::ops::Range<usize>,
                problems: &mut $crate::config::problem::Problems,
            ) -> Option<Self> {
                let mut keys = $crate::config::read::Keys::new(table, span.clone(), $title);
                $(
                    #[allow(unused_mut, unused_assignments)]
                    let mut default: Option<$type> = None;
                    $(default = Some($crate::config::read::At::new($default, span.clone()));)?
                    let $key = keys.take(stringify!($key), default, problems);
                )*
                keys.finish(problems);
                Some($name { $($key: $key?,)* })
            }

            /// The schema with the defaults, which make a key optional.
            fn with_defaults(schema: &mut schemars::Schema) {
                $($($crate::config::read::note_default(
                    schema,
                    stringify!($key),
                    serde_json::to_value(&$default).unwrap_or_default(),
                );)?)*
                let lists: &[&str] = &[$(
                    if <$type as $crate::config::read::FromToml>::absent().is_some() {
                        stringify!($key)
                    } else {
                        ""
                    }
                ),*];
                $crate::config::read::note_optional(schema, lists);
            }
        }

        impl $crate::config::read::FromToml for $name {
            fn from_toml(
                value: &toml::Spanned<toml::de::DeValue<'_>>,
                problems: &mut $crate::config::problem::Problems,
            ) -> Option<Self> {
                match value.get_ref() {
                    toml::de::DeValue::Table(table) => {
                        Self::from_table(table, value.span(), problems)
                    }
                    other => {
                        let kind = other.type_str();
                        problems.add(
                            value.span(),
                            format!("{} is a table, and this is a {kind}", $title),
                            "write its keys below a header in brackets",
                        );
                        None
                    }
                }
            }
        }
    };
}
pub(crate) use section;

/// Puts the default of `key` into a section's schema.
pub fn note_default(schema: &mut Schema, key: &str, default: serde_json::Value) {
    let property = schema.get_mut("properties").and_then(|all| all.get_mut(key));
    if let Some(property) = property.and_then(serde_json::Value::as_object_mut) {
        property.insert("default".into(), default);
    }
    note_optional(schema, &[key]);
}

/// Takes `keys` off a section's list of required ones.
pub fn note_optional(schema: &mut Schema, keys: &[&str]) {
    if let Some(required) = schema.get_mut("required").and_then(serde_json::Value::as_array_mut) {
        required.retain(|name| !name.as_str().is_some_and(|name| keys.contains(&name)));
    }
}
