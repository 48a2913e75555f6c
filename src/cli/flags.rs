//! Command-line flags for the options declared by the library.

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use serde::de::value::{MapDeserializer, SeqDeserializer};
use serde::de::{Deserializer, Error, IntoDeserializer, Visitor};
use serde::forward_to_deserialize_any;
use serde_json::Value;

use crate::options::{Choice, Kind, NamedValue, OptionSet, OptionSpec};

/// Options that are read from the command line.
pub struct Flags<T>(pub T);

/// The parser of a value that is one of a few names.
pub fn choice<T: Choice>() -> impl TypedValueParser<Value = T> {
    names(T::NAMES).map(|name| T::of_name(&name).expect("one of the names"))
}

fn names(names: &[NamedValue]) -> PossibleValuesParser {
    PossibleValuesParser::new(
        names.iter().map(|named| PossibleValue::new(named.name).help(named.help())),
    )
}

/// The options of a struct that a command offers.
pub trait OptionSubset {
    /// The struct.
    type Of: OptionSet;
    /// Its fields; the others keep their defaults.
    const FIELDS: &'static [&'static str];
}

/// Some options of a struct, read from the command line.
pub struct SubsetFlags<P: OptionSubset>(pub P::Of);

/// The options with these names, or all, that can be flags.
fn flags<T: OptionSet>(
    fields: Option<&'static [&'static str]>,
) -> impl Iterator<Item = OptionSpec> {
    let wanted = move |name| fields.is_none_or(|fields| fields.contains(&name));
    let options = T::specs().into_iter();
    options.filter(move |option| !matches!(option.kind, Kind::Other) && wanted(option.name))
}

fn augmented<T: OptionSet>(fields: Option<&'static [&'static str]>, command: Command) -> Command {
    let defaults = serde_json::to_value(T::default()).expect("plain data");
    command.args(flags::<T>(fields).map(|option| arg(&option, &defaults[option.name])))
}

impl<T: OptionSet> clap::Args for Flags<T> {
    fn augment_args(command: Command) -> Command {
        augmented::<T>(None, command)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl<P: OptionSubset> clap::Args for SubsetFlags<P> {
    fn augment_args(command: Command) -> Command {
        augmented::<P::Of>(Some(P::FIELDS), command)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

/// The flag of an option.
fn arg(option: &OptionSpec, default: &Value) -> Arg {
    let value = option.value.map_or_else(|| option.name.to_uppercase(), String::from);
    let arg = Arg::new(option.name)
        .long(option.flag())
        .help(option.help.clone())
        .allow_hyphen_values(option.hyphens);
    let arg = match option.requires {
        Some(other) => arg.requires(other),
        None => arg,
    };
    let arg = match option.conflicts {
        Some(other) => arg.conflicts_with(other),
        None => arg,
    };
    let arg = match option.kind {
        Kind::Flag => return arg.action(ArgAction::SetTrue),
        Kind::U32 => arg.value_parser(value_parser!(u32)),
        Kind::U64 => arg.value_parser(value_parser!(u64)),
        Kind::Usize => arg.value_parser(value_parser!(usize)),
        Kind::Number => arg.value_parser(value_parser!(f64)),
        Kind::Text => arg,
        Kind::Other => unreachable!("it has no flag"),
        Kind::List => arg.action(ArgAction::Append).value_delimiter(','),
        Kind::Repeated => arg.action(ArgAction::Append),
        Kind::Choice(named) => arg.value_parser(names(named)),
        Kind::Choices(named) => {
            arg.action(ArgAction::Append).value_delimiter(',').value_parser(names(named))
        }
    };
    let arg = arg.value_name(value);
    match default {
        Value::Number(number) => match number.as_u64() {
            Some(whole) => arg.default_value(whole.to_string()),
            None => arg.default_value(number.as_f64().unwrap_or_default().to_string()),
        },
        Value::String(text) => arg.default_value(text.clone()),
        _ => arg,
    }
}

/// The struct with these options as given; the others keep their defaults.
fn read<T: OptionSet>(
    fields: Option<&'static [&'static str]>,
    matches: &ArgMatches,
) -> Result<T, clap::Error> {
    let given = flags::<T>(fields).filter_map(|option| {
        let name = option.name;
        let given = match option.kind {
            Kind::Flag => Given::Flag(matches.get_flag(name)),
            Kind::U32 => Given::Whole((*matches.get_one::<u32>(name)?).into()),
            Kind::U64 => Given::Whole(*matches.get_one(name)?),
            Kind::Usize => Given::Whole(*matches.get_one::<usize>(name)? as u64),
            Kind::Number => Given::Number(*matches.get_one(name)?),
            Kind::Text | Kind::Choice(_) => Given::Text(matches.get_one(name).cloned()?),
            Kind::List | Kind::Repeated | Kind::Choices(_) => {
                Given::List(matches.get_many(name).into_iter().flatten().cloned().collect())
            }
            Kind::Other => return None,
        };
        Some((name.to_string(), given))
    });
    let given: Vec<(String, Given)> = given.collect();
    let defaults = serde_json::to_value(T::default()).expect("plain data");
    let defaults = defaults.as_object().cloned().unwrap_or_default().into_iter();
    let left = defaults.filter(|(name, _)| !given.iter().any(|(known, _)| known == name));
    let left: Vec<_> = left.map(|(name, value)| (name, Given::Default(value))).collect();
    T::deserialize(MapDeserializer::new(left.into_iter().chain(given)))
        .map_err(|e| clap::Error::raw(clap::error::ErrorKind::ValueValidation, e))
}

impl<T: OptionSet> clap::FromArgMatches for Flags<T> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        read(None, matches).map(Flags)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl<P: OptionSubset> clap::FromArgMatches for SubsetFlags<P> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        read(Some(P::FIELDS), matches).map(SubsetFlags)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// The value given for an option. Not a JSON or TOML value: JSON has no infinity and TOML no u64, and both must get
/// through, to be refused by name later.
enum Given {
    Flag(bool),
    Whole(u64),
    Number(f64),
    Text(String),
    List(Vec<String>),
    /// Not given: the default.
    Default(Value),
}

impl IntoDeserializer<'_, serde::de::value::Error> for Given {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

impl<'de> Deserializer<'de> for Given {
    type Error = serde::de::value::Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        match self {
            Given::Flag(value) => visitor.visit_bool(value),
            Given::Whole(value) => visitor.visit_u64(value),
            Given::Number(value) => visitor.visit_f64(value),
            Given::Text(value) => visitor.visit_string(value),
            Given::List(values) => visitor.visit_seq(SeqDeserializer::new(values.into_iter())),
            Given::Default(value) => value.deserialize_any(visitor).map_err(Error::custom),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        match self {
            Given::Default(Value::Null) => visitor.visit_none(),
            given => visitor.visit_some(given),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        match self {
            Given::Text(text) => text.into_deserializer().deserialize_enum(name, variants, visitor),
            Given::Default(value) => {
                value.deserialize_enum(name, variants, visitor).map_err(Error::custom)
            }
            other => other.deserialize_any(visitor),
        }
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct
        newtype_struct seq tuple tuple_struct map struct identifier ignored_any
    }
}
