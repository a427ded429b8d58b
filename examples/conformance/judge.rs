//! Compares expected and received frames. A server may choose the texts of close frames and errors, and the formatting of its own messages.
//! Relayed data must be equal byte for byte.

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
    Frame, Seen, Stage, Wait,
    socket::{Sockets, Target},
};

use crate::dialect::Dialect;

/// The expected and the actual behaviour of a server.
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

/// The failure of a case that expected any response.
impl From<io::Error> for Mismatch {
    fn from(error: io::Error) -> Self {
        Self::new("a response", error)
    }
}

/// Returns whether a client of this dialect has received what was expected.
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

/// Compares messages of `sigver.v1` member by member. Returns `None` if one is not a JSON object without duplicate members.
fn is_same_message(expected: &str, seen: &str) -> Option<bool> {
    let Members(mut expected) = serde_json::from_str(expected).ok()?;
    let Members(mut seen) = serde_json::from_str(seen).ok()?;
    let same_data = match (expected.remove("data"), seen.remove("data")) {
        (None, None) => true,
        (expected, seen) => expected?.get() == seen?.get(),
    };
    let mut expected = values(&expected)?;
    let mut seen = values(&seen)?;
    // The text of an error is for people. Any string is valid.
    let same_message = match (expected.remove("message"), seen.remove("message")) {
        (None, None) => true,
        (expected, seen) => expected.is_some() && seen.is_some_and(|message| message.is_string()),
    };
    // So is the token of an opener, which transcripts require, and other cases only if they use it.
    let same_token = match (expected.get("type"), expected.get("token")) {
        (Some(message_type), None) if message_type == "opened" => {
            seen.remove("token").is_none_or(|token| token.is_string())
        }
        _ => true,
    };
    Some(same_data && same_message && same_token && expected == seen)
}

fn values(members: &BTreeMap<String, Box<RawValue>>) -> Option<BTreeMap<&str, Value>> {
    let value = |raw: &RawValue| serde_json::from_str(raw.get()).ok();
    members
        .iter()
        .map(|(name, raw)| Some((name.as_str(), value(raw)?)))
        .collect()
}

/// The members of a JSON object, with their values as written. Duplicate members are rejected.
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
                        return Err(A::Error::custom("duplicate member"));
                    }
                }
                Ok(Members(members))
            }
        }

        deserializer.deserialize_map(Object)
    }
}

/// A [`Stage`] for any server, which compares only what PROTOCOL.md requires.
pub(crate) struct Judge {
    sockets: Sockets,
    dialects: BTreeMap<char, Dialect>,
    expects_tokens: bool,
}

impl Judge {
    pub(crate) fn new(target: &Target, role_deadline: Duration, until: Instant) -> Self {
        Self {
            sockets: Sockets::until(target.clone(), role_deadline, until),
            dialects: BTreeMap::new(),
            expects_tokens: true,
        }
    }

    /// Accepts `opened` without a token where a transcript does not use the token.
    pub(crate) fn expect_no_tokens(&mut self) {
        self.expects_tokens = false;
    }

    /// See [`Sockets::rely_on_pongs`].
    pub(crate) fn rely_on_pongs(&mut self) {
        self.sockets.rely_on_pongs();
    }

    /// Disconnects all clients, and waits until the server has closed the connections.
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

    fn wait(&mut self, time: Wait) -> io::Result<()> {
        self.sockets.wait(time)
    }

    fn is_same(&self, who: char, expected: &Seen, seen: &Seen) -> bool {
        let dialect = self.dialects.get(&who).copied().unwrap_or(Dialect::Plain);
        is_same(dialect, expected, seen) || !self.expects_tokens && is_same(dialect, &without_token(expected), seen)
    }
}

/// Returns an expected frame without the placeholder of a token that no step uses.
fn without_token(expected: &Seen) -> Seen {
    match expected {
        Seen::Text(text) => Seen::Text(text.replace(r#","token":"$_""#, "")),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn same(dialect: Dialect, expected: &str, seen: &str) -> bool {
        is_same(dialect, &Seen::Text(expected.into()), &Seen::Text(seen.into()))
    }

    #[test]
    fn v1_messages_with_different_formatting_match() {
        for (expected, seen) in [
            (
                r#"{"type":"joined","index":0}"#,
                r#" { "index" : 0, "type" : "joined" }"#,
            ),
            (
                r#"{"type":"opened","key":"é"}"#,
                r#"{"type":"opened","token":"t","key":"\u00e9"}"#,
            ),
            (
                r#"{"type":"opened","key":"k","token":"t"}"#,
                r#"{"type":"opened","token":"\u0074","key":"k"}"#,
            ),
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
    fn v1_messages_with_different_meaning_do_not_match() {
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
                r#"{"type":"opened","key":"k"}"#,
                r#"{"type":"opened","key":"k","token":7}"#,
            ),
            (
                r#"{"type":"opened","key":"k","token":"$_"}"#,
                r#"{"type":"opened","key":"k"}"#,
            ),
            (
                r#"{"type":"opened","key":"k","token":"t"}"#,
                r#"{"type":"opened","key":"k","token":"T"}"#,
            ),
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
    fn close_frames_match_by_code_and_not_by_text() {
        let closed = |code, text: &str| Seen::Close(code, text.into());
        let expected = closed(Some(1008), "key is taken");
        assert!(is_same(Dialect::Plain, &expected, &closed(Some(1008), "taken")));
        assert!(!is_same(Dialect::Plain, &expected, &closed(Some(1007), "key is taken")));
        assert!(!is_same(Dialect::Plain, &expected, &closed(None, "")));
        assert!(!is_same(Dialect::Plain, &expected, &Seen::Lost));
    }
}
