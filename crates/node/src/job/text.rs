//! The JSON form of values that are written as text: names, ids, digests, times and money.

use std::fmt::Display;

use dispatch_core::policy::admission::Billing;
use dispatch_core::policy::dec::Dec;
use dispatch_core::policy::money::Usd;
use dispatch_core::policy::window::RunName;
use dispatch_core::protocol::fraction::Fraction;
use dispatch_core::protocol::names::{Digest, Lane, Name, NodeName, TaskId, canonical_uuid};
use dispatch_core::protocol::task::Priority;
use dispatch_core::protocol::time::Timestamp;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serializer};
use uuid::Uuid;

/// A value with one text.
pub(super) trait Text: Sized + Display {
    /// Reads the text; the error names the rule it breaks.
    fn from_text(text: &str) -> Result<Self, String>;
}

macro_rules! text {
    ($($kind:ty => $read:path),* $(,)?) => { $(
        impl Text for $kind {
            fn from_text(text: &str) -> Result<Self, String> {
                $read(text).map_err(|error| error.to_string())
            }
        }
    )* };
}

text! {
    NodeName => NodeName::new,
    Name => Name::new,
    TaskId => TaskId::parse_any_version,
    Digest => Digest::parse,
    Timestamp => Timestamp::parse,
    Usd => Usd::from_wire,
    Lane => Lane::parse,
    RunName => RunName::new,
    Fraction => Fraction::from_wire,
    Uuid => canonical_uuid,
}

pub(super) fn serialize<T: Text, S: Serializer>(value: &T, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(value)
}

pub(super) fn deserialize<'de, T: Text, D: Deserializer<'de>>(from: D) -> Result<T, D::Error> {
    T::from_text(&String::deserialize(from)?).map_err(D::Error::custom)
}

/// The same for a value that may be null.
pub(super) mod or_null {
    use super::{Deserialize as _, Deserializer, Serializer, Text};
    use serde::de::Error as _;

    pub(in crate::job) fn serialize<T: Text, S: Serializer>(
        value: &Option<T>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        match value {
            Some(value) => to.collect_str(value),
            None => to.serialize_none(),
        }
    }

    pub(in crate::job) fn deserialize<'de, T: Text, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<T>, D::Error> {
        let text = Option::<String>::deserialize(from)?;
        text.map(|text| T::from_text(&text).map_err(D::Error::custom)).transpose()
    }
}

/// A member that may be null and must be there.
pub(super) mod nullable {
    use super::{Deserialize, Deserializer, Serializer};
    use serde::Serialize;

    pub(in crate::job) fn serialize<T: Serialize, S: Serializer>(
        value: &T,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        value.serialize(to)
    }

    pub(in crate::job) fn deserialize<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
        from: D,
    ) -> Result<T, D::Error> {
        T::deserialize(from)
    }
}

/// A member that is an object: a derived reader takes a list of an object's values as well.
pub(super) mod an_object {
    use std::fmt;
    use std::marker::PhantomData;

    use super::{Deserialize, Deserializer, Serializer};
    use serde::Serialize;
    use serde::de::value::MapAccessDeserializer;
    use serde::de::{MapAccess, Visitor};

    pub(in crate::job) fn serialize<T: Serialize, S: Serializer>(
        value: &T,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        value.serialize(to)
    }

    pub(in crate::job) fn deserialize<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
        from: D,
    ) -> Result<T, D::Error> {
        from.deserialize_map(OfMap(PhantomData))
    }

    struct OfMap<T>(PhantomData<T>);

    impl<'de, T: Deserialize<'de>> Visitor<'de> for OfMap<T> {
        type Value = T;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<M: MapAccess<'de>>(self, map: M) -> Result<T, M::Error> {
            T::deserialize(MapAccessDeserializer::new(map))
        }
    }
}

impl Text for Priority {
    fn from_text(text: &str) -> Result<Self, String> {
        Priority::parse(text).ok_or_else(|| "not one of low, normal, high".to_owned())
    }
}

impl Text for Billing {
    fn from_text(text: &str) -> Result<Self, String> {
        Billing::parse(text).ok_or_else(|| "not one of metered, subscription, free".to_owned())
    }
}

impl Text for Dec {
    fn from_text(text: &str) -> Result<Self, String> {
        Dec::parse(text).map_err(|_| "not a decimal number".to_owned())
    }
}
