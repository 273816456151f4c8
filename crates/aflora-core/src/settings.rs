//! Settings, each declared once: its name, type, default and what it does. The struct, its
//! defaults and the keys that users see follow from the declaration.
//!
//! ```
//! aflora_core::settings! {
//!     /// An example's settings.
//!     pub struct Example {
//!         /// Rank of A and B.
//!         pub rank: i64 = 4,
//!     }
//! }
//!
//! assert_eq!(Example::default().rank, 4);
//! let key = &aflora_core::settings::keys_of::<Example>()[0];
//! assert_eq!((key.name.as_str(), key.takes, key.about.as_str()), ("rank", "number", "rank of A and B"));
//! ```

use crate::Span;

/// A setting, as users see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// Its name; dots lead into groups, as in `freeze.t_i`.
    pub name: String,
    /// The values that it takes.
    pub takes: &'static str,
    /// What it does.
    pub about: String,
}

/// A type that a setting has, or a group of settings.
pub trait Setting {
    /// Adds the keys of a setting called `name`, of which its field's documentation says `doc`.
    fn add_keys(name: &str, doc: &str, keys: &mut Vec<Key>);
}

/// The keys of a group of settings, in the order of its fields.
pub fn keys_of<S: Setting>() -> Vec<Key> {
    let mut keys = Vec::new();
    S::add_keys("", "", &mut keys);
    keys
}

/// Declares a group of settings: a struct with serde's traits, its defaults, and its keys, of
/// which the documentation of the fields tells.
#[macro_export]
macro_rules! settings {
    (
        $(#[$meta:meta])*
        pub struct $name:ident {
            $( $(#[doc = $doc:literal])+ pub $field:ident: $type:ty = $default:expr, )*
        }
    ) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, ::serde::Serialize, ::serde::Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub struct $name {
            $( $(#[doc = $doc])+ pub $field: $type, )*
        }

        impl Default for $name {
            fn default() -> Self {
                $name { $( $field: $default, )* }
            }
        }

        impl $crate::settings::Setting for $name {
            #[allow(unused_variables)]
            fn add_keys(name: &str, _: &str, keys: &mut Vec<$crate::settings::Key>) {
                let below = |field: &str| match name {
                    "" => field.to_string(),
                    group => format!("{group}.{field}"),
                };
                $( <$type as $crate::settings::Setting>::add_keys(
                    &below(stringify!($field)), concat!($($doc),+), keys,
                ); )*
            }
        }
    };
}

/// Says which values a type of settings takes.
#[macro_export]
macro_rules! takes {
    ($($type:ty: $values:literal),* $(,)?) => {
        $( impl $crate::settings::Setting for $type {
            fn add_keys(name: &str, doc: &str, keys: &mut Vec<$crate::settings::Key>) {
                let (name, about) = (name.to_string(), $crate::settings::told(doc));
                keys.push($crate::settings::Key { name, takes: $values, about });
            }
        } )*
    };
}

takes! {
    i64: "number",
    u64: "number",
    f64: "number",
    bool: "true, false",
    Option<f64>: "number, null",
    Span: "1 epoch, 70%, 100 steps",
}

/// A field's documentation as it stands behind a key: without the capital and the full stop of a
/// sentence.
#[doc(hidden)]
pub fn told(doc: &str) -> String {
    let text = doc.trim().trim_end_matches('.');
    let mut letters = text.chars();
    match (letters.next(), letters.next()) {
        (Some(first @ 'A'..='Z'), Some('a'..='z')) => {
            format!("{}{}", first.to_ascii_lowercase(), &text[1..])
        }
        _ => text.to_string(),
    }
}
