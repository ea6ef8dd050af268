//! How a field of a message stands in JSON, as the Go server writes and reads it: left out when it is empty (Go's
//! `omitempty`), `null` the same as absent, and `bytes` as the JSON value that they are, be it `null`.

use base64::engine::{Engine, general_purpose::STANDARD};
use serde::de::{Deserialize, DeserializeOwned, Deserializer};
use serde::ser::{Error, Serialize, Serializer};
use serde_json::value::RawValue;
use std::collections::BTreeMap;

/// The type of a field.
pub(super) trait Field: Sized {
    /// Whether it is left out.
    fn is_absent(&self) -> bool;

    fn write<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error>;

    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error>;
}

/// A message of the schema: what tells a list of messages from bytes.
pub(super) trait Schema {}

macro_rules! plain_fields {
    ($([$($generics:tt)*] $type:ty: $empty:expr;)*) => {$(
        impl<$($generics)*> Field for $type {
            fn is_absent(&self) -> bool {
                let is_empty: fn(&Self) -> bool = $empty;
                is_empty(self)
            }

            fn write<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                self.serialize(serializer)
            }

            fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                Option::<Self>::deserialize(deserializer).map(Option::unwrap_or_default)
            }
        }
    )*};
}

plain_fields! {
    [] bool: |&flag| !flag;
    [] u32: |&number| number == 0;
    [] u64: |&number| number == 0;
    [] i32: |&number| number == 0;
    [] i64: |&number| number == 0;
    [] String: String::is_empty;
    [T: Schema + Serialize + DeserializeOwned] Option<T>: Option::is_none;
    [T: Schema + Serialize + DeserializeOwned] Vec<T>: Vec::is_empty;
    [T: Serialize + DeserializeOwned] BTreeMap<String, T>: BTreeMap::is_empty;
}

/// A payload or an `info`. What is read is the JSON as it stands, unparsed, `null` included. What is written is one line,
/// and always JSON: bytes that are none (from a client with Protobuf, a `b64info`) stand as [`binary`] has them.
impl Field for Vec<u8> {
    fn is_absent(&self) -> bool {
        self.is_empty()
    }

    fn write<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let line = match serde_json::from_slice::<&RawValue>(self) {
            Ok(json) if !json.get().contains(LINE_ENDS) => return json.serialize(serializer),
            // Inside of strings they are escaped: what is left stands between tokens.
            Ok(json) => json.get().replace(LINE_ENDS, ""),
            Err(_) => binary(self),
        };
        RawValue::from_string(line).map_err(S::Error::custom)?.serialize(serializer)
    }

    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        <&RawValue>::deserialize(deserializer).map(|json| json.get().as_bytes().to_vec())
    }
}

/// A line feed parts the messages of a frame; both part the lines of an event stream.
const LINE_ENDS: [char; 2] = ['\r', '\n'];

/// Bytes for those who can read JSON only.
pub(super) fn binary(bytes: &[u8]) -> String {
    format!("{{\"base64\":\"{}\"}}", STANDARD.encode(bytes))
}
