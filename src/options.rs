//! Options, each declared once: as a field of a struct, with its default and one sentence of help. Serde turns the
//! struct into TOML and JSON, and the command line turns [`OptionSet::specs`] into flags.

use std::path::PathBuf;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// A struct of options; declared with [`options!`](crate::options!).
pub trait OptionSet: Clone + Default + Serialize + DeserializeOwned {
    /// The options, in the order of the fields.
    fn specs() -> Vec<OptionSpec>;
}

/// One option.
#[derive(Clone, Debug)]
pub struct OptionSpec {
    /// The field, as in TOML; the flag has - instead of _.
    pub name: &'static str,
    /// The help text.
    pub help: String,
    /// The placeholder for its value in the help.
    pub value: Option<&'static str>,
    /// The kind of its values.
    pub kind: Kind,
    /// True if a value may begin with -.
    pub hyphens: bool,
    /// An option that must be given with it.
    pub requires: Option<&'static str>,
    /// An option that cannot be given with it.
    pub conflicts: Option<&'static str>,
}

/// The kind of values that an option takes.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// Given or not.
    Flag,
    /// An integer that fits a u32.
    U32,
    /// An integer that fits a u64.
    U64,
    /// An integer that fits a usize.
    Usize,
    /// A number.
    Number,
    /// A string.
    Text,
    /// Strings, separated by commas on the command line.
    List,
    /// Strings that may contain commas; on the command line the flag is repeated for each.
    Repeated,
    /// One of a few names.
    Choice(&'static [NamedValue]),
    /// Some of a few names, separated by commas on the command line.
    Choices(&'static [NamedValue]),
    /// Something that has no flag.
    Other,
}

/// A value that has a name.
#[derive(Clone, Copy, Debug)]
pub struct NamedValue {
    /// The name.
    pub name: &'static str,
    /// What it means, as the lines of a doc comment.
    pub help: &'static [&'static str],
}

impl NamedValue {
    /// What it means, as one sentence for the help.
    pub fn help(&self) -> String {
        sentence(self.help)
    }
}

/// The lines of a doc comment as one sentence for the help.
fn sentence(lines: &[&str]) -> String {
    let lines: Vec<&str> = lines.iter().map(|line| line.trim()).collect();
    lines.join(" ").trim_end_matches('.').to_string()
}

impl OptionSpec {
    /// An option with values of this kind.
    pub fn new(name: &'static str, help: &[&str], kind: Kind) -> Self {
        let (value, help) = (None, sentence(help));
        OptionSpec { name, help, value, kind, hyphens: false, requires: None, conflicts: None }
    }

    /// The flag, without --.
    pub fn flag(&self) -> String {
        self.name.replace('_', "-")
    }

    /// Sets the placeholder for its value in the help.
    pub fn value(self, value: &'static str) -> Self {
        OptionSpec { value: Some(value), ..self }
    }

    /// Sets the help text, where it has to be computed.
    pub fn help(self, help: String) -> Self {
        OptionSpec { help, ..self }
    }

    /// Allows values to begin with -.
    pub fn hyphens(self) -> Self {
        OptionSpec { hyphens: true, ..self }
    }

    /// Makes the flag repeatable, since its values may contain commas.
    pub fn repeated(self) -> Self {
        OptionSpec { kind: Kind::Repeated, ..self }
    }

    /// Requires `option` to be given with it.
    pub fn requires(self, option: &'static str) -> Self {
        OptionSpec { requires: Some(option), ..self }
    }

    /// Forbids giving `option` with it.
    pub fn conflicts(self, option: &'static str) -> Self {
        OptionSpec { conflicts: Some(option), ..self }
    }
}

/// A type that an option may have.
pub trait Value {
    /// The kind of its values.
    const KIND: Kind;
}

impl<T: Value> Value for Option<T> {
    const KIND: Kind = T::KIND;
}

macro_rules! values {
    ($($type:ty = $kind:ident),+ $(,)?) => {
        $(impl Value for $type {
            const KIND: Kind = Kind::$kind;
        })+
    };
}

values!(
    bool = Flag,
    u32 = U32,
    u64 = U64,
    usize = Usize,
    f64 = Number,
    String = Text,
    PathBuf = Text,
    Vec<String> = List,
);

/// A type with a few named values; declared with [`choice!`](crate::choice!).
pub trait Choice: Copy + Send + Sync + 'static {
    /// The values, in the order of the help.
    const VALUES: &'static [Self];
    /// Their names.
    const NAMES: &'static [NamedValue];

    /// The value with this name.
    fn of_name(name: &str) -> Option<Self> {
        let at = Self::NAMES.iter().position(|named| named.name == name)?;
        Some(Self::VALUES[at])
    }
}

impl<T: Choice> Value for Vec<T> {
    const KIND: Kind = Kind::Choices(T::NAMES);
}

/// Declares a struct of options: fields with doc comments, types and defaults, each followed by optional calls of
/// the methods of [`OptionSpec`].
#[macro_export]
macro_rules! options {
    (
        $(#[doc = $about:literal])+
        $(#[derive($($derive:ident),+)])?
        pub struct $name:ident {
            $(
                $(#[doc = $doc:literal])+
                $(#[serde($($serde:tt)+)])?
                $field:ident: $type:ty = $default:expr $(=> [$($more:tt)+])?
            );+ $(;)?
        }
    ) => {
        $(#[doc = $about])+
        #[derive(Clone, Debug, PartialEq, ::serde::Serialize, ::serde::Deserialize)]
        $(#[derive($($derive),+)])?
        pub struct $name {
            $(
                $(#[doc = $doc])+
                $(#[serde($($serde)+)])?
                pub $field: $type,
            )+
        }

        impl Default for $name {
            fn default() -> Self {
                $name { $($field: $default),+ }
            }
        }

        impl $crate::options::OptionSet for $name {
            fn specs() -> Vec<$crate::options::OptionSpec> {
                use $crate::options::{OptionSpec, Value};
                vec![$({
                    let spec =
                        OptionSpec::new(stringify!($field), &[$($doc),+], <$type as Value>::KIND);
                    $(let spec = spec $($more)+;)?
                    spec
                }),+]
            }
        }
    };
}

/// Declares an enum whose values have names, in TOML and on the command line: variants with doc comments.
#[macro_export]
macro_rules! choice {
    (
        $(#[doc = $about:literal])+
        pub enum $name:ident {
            $(
                $(#[doc = $doc:literal])+
                $variant:ident = $text:literal,
            )+
        }
    ) => {
        $(#[doc = $about])+
        #[derive(Clone, Copy, Debug, PartialEq, Eq, ::serde::Serialize, ::serde::Deserialize)]
        pub enum $name {
            $(
                $(#[doc = $doc])+
                #[serde(rename = $text)]
                $variant,
            )+
        }

        impl $name {
            /// The name, as in TOML and on the command line.
            pub fn name(self) -> &'static str {
                match self {
                    $($name::$variant => $text,)+
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.name())
            }
        }

        impl $crate::options::Choice for $name {
            const VALUES: &'static [Self] = &[$($name::$variant),+];
            const NAMES: &'static [$crate::options::NamedValue] =
                &[$($crate::options::NamedValue { name: $text, help: &[$($doc),+] }),+];
        }

        impl $crate::options::Value for $name {
            const KIND: $crate::options::Kind =
                $crate::options::Kind::Choice(<$name as $crate::options::Choice>::NAMES);
        }
    };
}
