//! Options of a call, each declared once: a field of a struct, with its default and one sentence of help. Serde makes
//! TOML and JSON of the struct, and the command line makes flags of what [`Declared::described`] says.

use std::path::PathBuf;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// A struct of options; declared with [`options!`](crate::options!).
pub trait Declared: Clone + Default + Serialize + DeserializeOwned {
    /// The options, in their order.
    fn described() -> Vec<Described>;
}

/// One option.
#[derive(Clone, Debug)]
pub struct Described {
    /// The field, as in TOML; the flag has - in place of _.
    pub name: &'static str,
    /// What it means.
    pub help: String,
    /// What help calls its value.
    pub value: Option<&'static str>,
    /// What its values are.
    pub kind: Kind,
    /// True where a value may begin with -.
    pub hyphens: bool,
    /// The option without which it makes no sense.
    pub requires: Option<&'static str>,
    /// The option that it cannot be given with.
    pub conflicts: Option<&'static str>,
}

/// What the values of an option are.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// Given or not.
    Flag,
    /// A number that fits u32.
    U32,
    /// A number that fits u64.
    U64,
    /// A number that fits the computer.
    Usize,
    /// A number.
    Number,
    /// A text.
    Text,
    /// Texts, on the command line with commas between.
    List,
    /// Texts with commas in them, which on the command line are given one by one.
    Repeated,
    /// One of a few names.
    Choice(&'static [Named]),
    /// Some of a few names, on the command line with commas between.
    Choices(&'static [Named]),
    /// Something that no flag is made of.
    Other,
}

/// A value that has a name.
#[derive(Clone, Copy, Debug)]
pub struct Named {
    /// The name.
    pub name: &'static str,
    /// What it means, a line of a comment each.
    pub help: &'static [&'static str],
}

impl Named {
    /// What it means, as help says it.
    pub fn help(&self) -> String {
        sentence(self.help)
    }
}

/// Lines of a comment as help says them.
fn sentence(lines: &[&str]) -> String {
    let lines: Vec<&str> = lines.iter().map(|line| line.trim()).collect();
    lines.join(" ").trim_end_matches('.').to_string()
}

impl Described {
    /// An option with values of this kind.
    pub fn new(name: &'static str, help: &[&str], kind: Kind) -> Self {
        let (value, help) = (None, sentence(help));
        Described { name, help, value, kind, hyphens: false, requires: None, conflicts: None }
    }

    /// The flag, without --.
    pub fn flag(&self) -> String {
        self.name.replace('_', "-")
    }

    /// Help calls its value so.
    pub fn value(self, value: &'static str) -> Self {
        Described { value: Some(value), ..self }
    }

    /// What it means, where that has to be computed.
    pub fn help(self, help: String) -> Self {
        Described { help, ..self }
    }

    /// Values may begin with -.
    pub fn hyphens(self) -> Self {
        Described { hyphens: true, ..self }
    }

    /// Texts have commas in them.
    pub fn repeated(self) -> Self {
        Described { kind: Kind::Repeated, ..self }
    }

    /// It makes no sense without that option.
    pub fn requires(self, option: &'static str) -> Self {
        Described { requires: Some(option), ..self }
    }

    /// It cannot be given with that option.
    pub fn conflicts(self, option: &'static str) -> Self {
        Described { conflicts: Some(option), ..self }
    }
}

/// A type that options may have.
pub trait Value {
    /// What its values are.
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
    /// The values, in the order of help.
    const VALUES: &'static [Self];
    /// Their names.
    const NAMES: &'static [Named];

    /// The value of a name.
    fn of_name(name: &str) -> Option<Self> {
        let at = Self::NAMES.iter().position(|named| named.name == name)?;
        Some(Self::VALUES[at])
    }
}

impl<T: Choice> Value for Vec<T> {
    const KIND: Kind = Kind::Choices(T::NAMES);
}

/// Declares a struct of options: fields with their comments, types and defaults, then what else there is to say of
/// them ([`Described`]).
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

        impl $crate::options::Declared for $name {
            fn described() -> Vec<$crate::options::Described> {
                use $crate::options::{Described, Value};
                vec![$({
                    let described =
                        Described::new(stringify!($field), &[$($doc),+], <$type as Value>::KIND);
                    $(let described = described $($more)+;)?
                    described
                }),+]
            }
        }
    };
}

/// Declares an enum whose values have names, in TOML and on the command line: variants with their comments.
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
            const NAMES: &'static [$crate::options::Named] =
                &[$($crate::options::Named { name: $text, help: &[$($doc),+] }),+];
        }

        impl $crate::options::Value for $name {
            const KIND: $crate::options::Kind =
                $crate::options::Kind::Choice(<$name as $crate::options::Choice>::NAMES);
        }
    };
}
