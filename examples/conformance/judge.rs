//! What is the same, where a server may choose its words: the texts of close frames and errors, and how it writes the messages that
//! are its own. What it carries for others is compared to the byte. Never touches a socket but through `Sockets`.

use std::{
    collections::BTreeMap,
    fmt, io,
    time::{Duration, Instant},
};

use serde::{
    Deserialize, Deserializer,
    de::{Error, MapAccess, Visitor},
};
use serde_json::{Value, value::RawValue};
use sigver_transcripts::{
    Frame, Seen, Stage,
    socket::{Sockets, Target},
};

use crate::dialect::Dialect;

/// What was expected, and what was seen in its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mismatch {
    pub(crate) expected: String,
    pub(crate) seen: String,
}

impl Mismatch {
    pub(crate) fn new(expected: impl fmt::Display, seen: impl fmt::Display) -> Self {
        Self {
            expected: expected.to_string(),
            seen: seen.to_string(),
        }
    }
}

/// Where only an answer was expected.
impl From<io::Error> for Mismatch {
    fn from(error: io::Error) -> Self {
        Self::new("a server that answers", error)
    }
}

/// Whether a client of this dialect saw what it should have seen.
pub(crate) fn is_same(dialect: Dialect, expected: &Seen, seen: &Seen) -> bool {
    match (expected, seen) {
        (Seen::Close(expected, _), Seen::Close(seen, _)) => expected == seen,
        (Seen::Text(expected), Seen::Text(seen)) => match dialect {
            Dialect::Plain => expected == seen,
            Dialect::V1 => expected == seen || is_same_message(expected, seen) == Some(true),
        },
        _ => expected == seen,
    }
}

/// Compares messages of `sigver.v1` member by member; `None` where one is no message.
fn is_same_message(expected: &str, seen: &str) -> Option<bool> {
    let Members(mut expected) = serde_json::from_str(expected).ok()?;
    let Members(mut seen) = serde_json::from_str(seen).ok()?;
    let same_data = match (expected.remove("data"), seen.remove("data")) {
        (None, None) => true,
        (expected, seen) => expected?.get() == seen?.get(),
    };
    let mut expected = values(&expected)?;
    let mut seen = values(&seen)?;
    // For people: it has to be there.
    let same_message = match (expected.remove("message"), seen.remove("message")) {
        (None, None) => true,
        (expected, seen) => expected.is_some() && seen.is_some_and(|message| message.is_string()),
    };
    Some(same_data && same_message && expected == seen)
}

fn values(members: &BTreeMap<String, Box<RawValue>>) -> Option<BTreeMap<&str, Value>> {
    let value = |raw: &RawValue| serde_json::from_str(raw.get()).ok();
    members
        .iter()
        .map(|(name, raw)| Some((name.as_str(), value(raw)?)))
        .collect()
}

/// The members of an object as they were written, each there once.
struct Members(BTreeMap<String, Box<RawValue>>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;

        impl<'de> Visitor<'de> for Object {
            type Value = Members;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = BTreeMap::new();
                while let Some((name, value)) = map.next_entry()? {
                    if members.insert(name, value).is_some() {
                        return Err(A::Error::custom("a member is there twice"));
                    }
                }
                Ok(Members(members))
            }
        }

        deserializer.deserialize_map(Object)
    }
}

/// A server as a stage for transcripts, judged by what PROTOCOL.md says of any server.
pub(crate) struct Judge {
    sockets: Sockets,
    dialects: BTreeMap<char, Dialect>,
}

impl Judge {
    pub(crate) fn new(target: &Target, role_deadline: Duration, until: Instant) -> Self {
        Self {
            sockets: Sockets::until(target.clone(), role_deadline, until),
            dialects: BTreeMap::new(),
        }
    }

    /// See [`Sockets::rely_on_pongs`].
    pub(crate) fn rely_on_pongs(&mut self) {
        self.sockets.rely_on_pongs();
    }

    /// Ends all connections, and waits for the server to have noticed.
    pub(crate) fn finish(&mut self) -> io::Result<()> {
        self.sockets.finish()
    }
}

impl Stage for Judge {
    fn connect(&mut self, who: char, subprotocol: Option<&str>) -> io::Result<()> {
        self.dialects.insert(who, Dialect::of_offer(subprotocol));
        self.sockets.connect(who, subprotocol)
    }

    fn send(&mut self, who: char, frame: &Frame) -> io::Result<()> {
        self.sockets.send(who, frame)
    }

    fn receive(&mut self, who: char) -> io::Result<Seen> {
        self.sockets.receive(who)
    }

    fn leftover(&mut self, who: char) -> io::Result<Seen> {
        self.sockets.leftover(who)
    }

    fn close(&mut self, who: char, code: Option<u16>) -> io::Result<()> {
        self.sockets.close(who, code)
    }

    fn vanish(&mut self, who: char) -> io::Result<()> {
        self.sockets.vanish(who)
    }

    fn wait_role_deadline(&mut self) -> io::Result<()> {
        self.sockets.wait_role_deadline()
    }

    fn is_same(&self, who: char, expected: &Seen, seen: &Seen) -> bool {
        let dialect = self.dialects.get(&who).copied();
        is_same(dialect.unwrap_or(Dialect::Plain), expected, seen)
    }

    /// 32 hexadecimal digits, wherever the server writes them.
    fn made(&self, _: &str, text: &str) -> Option<String> {
        let message: Value = serde_json::from_str(text).ok()?;
        let key = message.get("key")?.as_str()?;
        let is_made = key.len() == 32 && key.bytes().all(|digit| digit.is_ascii_hexdigit());
        is_made.then(|| key.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn same(dialect: Dialect, expected: &str, seen: &str) -> bool {
        is_same(dialect, &Seen::Text(expected.into()), &Seen::Text(seen.into()))
    }

    #[test]
    fn what_the_server_makes_is_compared_by_its_meaning() {
        for (expected, seen) in [
            (
                r#"{"type":"joined","index":0}"#,
                r#" { "index" : 0, "type" : "joined" }"#,
            ),
            (r#"{"type":"opened","key":"é"}"#, r#"{"type":"opened","key":"\u00e9"}"#),
            (
                r#"{"type":"error","code":"no-role","message":"a"}"#,
                r#"{"message":"b","type":"error","code":"no-role"}"#,
            ),
            (
                r#"{"type":"data","index":0,"data":{ "a":1e0 }}"#,
                r#"{"data" : { "a":1e0 } ,"index":0,"type":"data"}"#,
            ),
        ] {
            assert!(same(Dialect::V1, expected, seen), "{seen}");
            assert!(!same(Dialect::Plain, expected, seen), "{seen}");
        }
    }

    #[test]
    fn what_means_something_else_differs() {
        for (expected, seen) in [
            (r#"{"type":"joined","index":0}"#, r#"{"type":"joined","index":"0"}"#),
            (
                r#"{"type":"joined","index":0}"#,
                r#"{"type":"joined","index":0,"index":0}"#,
            ),
            (
                r#"{"type":"joined","index":0}"#,
                r#"{"type":"joined","index":0,"key":"tea"}"#,
            ),
            (r#"{"type":"joined","index":0}"#, r#"{"type":"joined"}"#),
            (r#"{"type":"joined","index":0}"#, "joined"),
            (
                r#"{"type":"error","code":"no-role","message":"a"}"#,
                r#"{"type":"error","code":"no-role"}"#,
            ),
            (
                r#"{"type":"error","code":"no-role","message":"a"}"#,
                r#"{"type":"error","code":"no-role","message":5}"#,
            ),
            (
                r#"{"type":"data","data":{"a":1e0}}"#,
                r#"{"type":"data","data":{"a":1.0}}"#,
            ),
            (
                r#"{"type":"data","data":{"a":1}}"#,
                r#"{"type":"data","data":{ "a":1}}"#,
            ),
            (r#"{"type":"data","data":1}"#, r#"{"type":"data"}"#),
        ] {
            assert!(!same(Dialect::V1, expected, seen), "{seen}");
        }
    }

    #[test]
    fn of_a_close_frame_the_code_counts() {
        let closed = |code, text: &str| Seen::Close(code, text.into());
        let expected = closed(Some(1008), "key is taken");
        assert!(is_same(Dialect::Plain, &expected, &closed(Some(1008), "taken")));
        assert!(!is_same(Dialect::Plain, &expected, &closed(Some(1007), "key is taken")));
        assert!(!is_same(Dialect::Plain, &expected, &closed(None, "")));
        assert!(!is_same(Dialect::Plain, &expected, &Seen::Lost));
    }
}
