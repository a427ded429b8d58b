//! Reads the members of one JSON object, borrowed from its text, and the values that all dialects share. It copies no value.
//!
//! A derived `Deserialize` would be wrong in three ways: an `Option<&RawValue>` reads `"index":null` as absent, a lone surrogate in a
//! member's name is an error, and the offsets of the values are lost.

use alloc::{borrow::Cow, string::String};
use core::{fmt, time::Duration};

use serde::de::{Deserializer, Error as _, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::{
    id::{Index, Key, PeerId},
    limits::Limits,
    message::Addressee,
    payload::Spot,
    reason::{CloseReason, Member},
};

/// The members of an object that a dialect reads, each as its raw JSON text.
#[derive(Default)]
pub(super) struct Members<'a> {
    pub(super) message_type: Option<&'a str>,
    pub(super) key: Option<&'a str>,
    pub(super) index: Option<&'a str>,
    pub(super) data: Option<&'a str>,
    pub(super) id: Option<&'a str>,
    pub(super) wait: Option<&'a str>,
    /// The value of the last member, whatever its name.
    pub(super) last: Option<&'a str>,
}

/// Reads the `wanted` members of `text`, which must be one JSON object within `limits`. None of them may be repeated.
pub(super) fn object<'a>(text: &'a str, limits: &Limits, wanted: &[Member]) -> Result<Members<'a>, CloseReason> {
    check_size(text, limits)?;
    members(text, wanted)
}

/// Checks that `text` is one JSON value within `limits`. Returns it without surrounding white space.
pub(super) fn value<'a>(text: &'a str, limits: &Limits) -> Result<&'a str, CloseReason> {
    check_size(text, limits)?;
    let value: &RawValue = serde_json::from_str(text).map_err(|_| CloseReason::InvalidJson)?;
    Ok(value.get())
}

fn check_size(text: &str, limits: &Limits) -> Result<(), CloseReason> {
    if text.len() > limits.message_len() {
        return Err(CloseReason::TooBig);
    }
    // serde_json skips unread values without recursion, so its own limit on nesting does not apply.
    if is_deeper_than(limits.depth as usize, text.as_bytes()) {
        return Err(CloseReason::TooDeep);
    }
    Ok(())
}

/// Returns where an index goes in the raw JSON value `value`, which is within the limits.
pub(super) fn place_for_index(value: &str) -> Spot {
    if !value.starts_with('{') {
        return Spot::Nowhere;
    }
    match members(value, &[Member::Index]) {
        Ok(members) => Spot::within(value, members.index, members.last),
        // It has several, and recipients may differ in which one they read.
        Err(_) => Spot::Nowhere,
    }
}

fn members<'a>(text: &'a str, wanted: &[Member]) -> Result<Members<'a>, CloseReason> {
    let mut twice = None;
    let mut reader = serde_json::Deserializer::from_str(text);
    let members = reader
        .deserialize_map(ObjectVisitor {
            wanted,
            twice: &mut twice,
        })
        .and_then(|members| reader.end().map(|()| members));
    // serde_json stops at the first byte of another value, so its error does not show whether the text is JSON.
    members.map_err(|_| match (twice, serde_json::from_str::<&RawValue>(text)) {
        (Some(member), _) => CloseReason::Duplicate(member),
        (None, Ok(_)) => CloseReason::NotAnObject,
        (None, Err(_)) => CloseReason::InvalidJson,
    })
}

/// Returns the text of the JSON string `value`; `None` for another JSON value, and for a string with a lone surrogate.
pub(super) fn string(value: &str) -> Option<Cow<'_, str>> {
    let inner = value.strip_prefix('"')?.strip_suffix('"')?;
    if inner.contains('\\') {
        serde_json::from_str(value).ok().map(Cow::Owned)
    } else {
        Some(Cow::Borrowed(inner))
    }
}

/// Reads the raw JSON value of `key`.
pub(super) fn key(value: &str, limits: &Limits) -> Result<Key, CloseReason> {
    Ok(Key::new(&string(value).ok_or(CloseReason::KeyNotString)?, limits)?)
}

/// Reads the raw JSON value of `id`, if there is one.
pub(super) fn id(value: Option<&str>) -> Result<Option<PeerId>, CloseReason> {
    let Some(value) = value else { return Ok(None) };
    Ok(Some(PeerId::new(&string(value).ok_or(CloseReason::IdMalformed)?)?))
}

/// Reads the raw JSON value of `index`: an integer, or a string that is one, as `0|[1-9][0-9]*`.
pub(super) fn addressee(value: Option<&str>) -> Addressee {
    let Some(value) = value else {
        return Addressee::Unnamed;
    };
    let text = string(value);
    let digits = text.as_deref().unwrap_or(value);
    if !is_integer(digits) {
        return Addressee::Malformed;
    }
    // The last u32 is never assigned: the hub counts to it.
    match digits.parse() {
        Ok(u32::MAX) | Err(_) => Addressee::OutOfRange,
        Ok(number) => Addressee::Index(Index::new(number)),
    }
}

/// Reads the raw JSON value of `wait`, if there is one: a number of seconds as `0|[1-9][0-9]*`, of which `limits` allow a part.
pub(super) fn wait(value: Option<&str>, limits: &Limits) -> Result<Duration, CloseReason> {
    let digits = value.unwrap_or("0");
    if !is_integer(digits) {
        return Err(CloseReason::WaitMalformed);
    }
    // Only a number that is too large does not fit.
    let seconds = digits.parse().unwrap_or(u64::MAX);
    Ok(Duration::from_secs(seconds.min(limits.join_wait.as_secs())))
}

/// Whether the text is `0|[1-9][0-9]*`.
fn is_integer(text: &str) -> bool {
    matches!(text.as_bytes(), [b'0'] | [b'1'..=b'9', ..]) && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Appends `text` as a JSON string.
pub(super) fn quote(text: &str, out: &mut String) {
    // A string never fails to serialise.
    out.push_str(&serde_json::to_string(text).unwrap_or_default());
}

/// Returns whether brackets nest deeper than `limit` outside of strings. Exact for JSON; other text is rejected later.
fn is_deeper_than(limit: usize, text: &[u8]) -> bool {
    // Nearly every message has fewer opening brackets than the limit, and counting them takes no branch.
    if opening_brackets(text) <= limit {
        return false;
    }
    let mut depth = 0_usize;
    let mut in_string = false;
    let mut bytes = text.iter();
    while let Some(&byte) = bytes.next() {
        match byte {
            b'"' => in_string = !in_string,
            // An escaped quote does not end the string. Outside of strings JSON has no backslash.
            b'\\' => {
                bytes.next();
            }
            b'{' | b'[' if !in_string => {
                depth += 1;
                if depth > limit {
                    return true;
                }
            }
            b'}' | b']' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    false
}

/// Counts the bytes `{` and `[`, which differ in one bit.
fn opening_brackets(text: &[u8]) -> usize {
    // In chunks that a byte can count, because the compiler vectorises that.
    let count = |chunk: &[u8]| chunk.iter().map(|byte| u8::from(byte | 0x20 == b'{')).sum::<u8>();
    text.chunks(usize::from(u8::MAX))
        .map(|chunk| usize::from(count(chunk)))
        .sum()
}

struct ObjectVisitor<'t> {
    wanted: &'t [Member],
    twice: &'t mut Option<Member>,
}

impl<'a> Visitor<'a> for ObjectVisitor<'_> {
    type Value = Members<'a>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<Members<'a>, A::Error> {
        let mut members = Members::default();
        // A name is read raw, like a value: it need not be Unicode, and only a raw value is checked for control characters.
        while let Some(name) = map.next_key::<&'a RawValue>()? {
            let value = map.next_value::<&'a RawValue>()?.get();
            members.last = Some(value);
            let Some(member) = member(name.get()).filter(|member| self.wanted.contains(member)) else {
                continue;
            };
            let place = match member {
                Member::Type => &mut members.message_type,
                Member::Key => &mut members.key,
                Member::Index => &mut members.index,
                Member::Data => &mut members.data,
                Member::Id => &mut members.id,
                Member::Wait => &mut members.wait,
            };
            if place.replace(value).is_some() {
                *self.twice = Some(member);
                return Err(A::Error::custom(""));
            }
        }
        Ok(members)
    }
}

/// Returns the member that has this name, a raw JSON string.
fn member(name: &str) -> Option<Member> {
    match &*string(name)? {
        "type" => Some(Member::Type),
        "key" => Some(Member::Key),
        "index" => Some(Member::Index),
        "data" => Some(Member::Data),
        "id" => Some(Member::Id),
        "wait" => Some(Member::Wait),
        _ => None,
    }
}
