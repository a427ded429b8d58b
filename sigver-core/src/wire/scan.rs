//! Owns the only reading of JSON: one object's members, borrowed from its text, and what the values of those mean that all dialects
//! share. Never copies a value, never knows which
//! messages a dialect has.
//!
//! Three traps that a derived `Deserialize` falls into decide its shape: an `Option<&RawValue>` reads `"index":null` as absent; a
//! lone surrogate in a member's name is refused; and the offsets of what was read are lost.

use alloc::{borrow::Cow, string::String};
use core::{fmt, ops::Range};

use serde::de::{Deserializer, Error as _, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::payload::Spot;
use crate::{Addressee, CloseReason, Index, Key, Limits, Member};

/// The members of an object that a dialect reads, each as its raw JSON text.
#[derive(Default)]
pub(super) struct Members<'a> {
    pub(super) kind: Option<&'a str>,
    pub(super) key: Option<&'a str>,
    pub(super) index: Option<&'a str>,
    pub(super) data: Option<&'a str>,
    /// The value of the last member, whatever its name.
    pub(super) last: Option<&'a str>,
}

/// Where `value`, which was borrowed from `text`, stands in it.
pub(super) fn place(text: &str, value: &str) -> Range<usize> {
    let start = value.as_ptr().addr() - text.as_ptr().addr();
    start..start + value.len()
}

/// Reads those members of `text` that are `wanted`; it must be one JSON object within `limits`, with none of them twice.
pub(super) fn object<'a>(text: &'a str, limits: &Limits, wanted: &[Member]) -> Result<Members<'a>, CloseReason> {
    if text.len() > limits.message_len() {
        return Err(CloseReason::TooBig);
    }
    // serde_json skips what nobody asked for without recursion, so its own guard against deep nesting does not apply.
    if deeper_than(limits.depth as usize, text.as_bytes()) {
        return Err(CloseReason::TooDeep);
    }
    members(text, wanted)
}

/// Where an index goes in the raw JSON value `value`, which is within limits.
pub(super) fn place_for_index(value: &str) -> Spot {
    if !value.starts_with('{') {
        return Spot::Nowhere;
    }
    match members(value, &[Member::Index]) {
        Ok(members) => Spot::within(value, members.index, members.last),
        // It has several, and any recipient may see another.
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
    // serde_json gives up at the first byte that begins no object, and what it makes of that is no judgement on the rest.
    members.map_err(|_| match (twice, serde_json::from_str::<&RawValue>(text)) {
        (Some(member), _) => CloseReason::Duplicate(member),
        (None, Ok(_)) => CloseReason::NotAnObject,
        (None, Err(_)) => CloseReason::InvalidJson,
    })
}

/// What the JSON string `value` says; `None` for another JSON value, and for a string with a lone surrogate, which is no text.
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
    Key::new(&string(value).ok_or(CloseReason::KeyNotString)?, limits)
}

/// Reads the raw JSON value of `index`: an integer, or a string that is one, as `0|[1-9][0-9]*`.
pub(super) fn addressee(value: Option<&str>) -> Addressee {
    let Some(value) = value else {
        return Addressee::Unnamed;
    };
    let text = string(value);
    let digits = text.as_deref().unwrap_or(value);
    match digits.as_bytes() {
        [b'0'] | [b'1'..=b'9', ..] if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            // Digits alone fail to parse only when the number is too large to have been assigned.
            Addressee::Index(digits.parse().map_or(Index::NOBODY, Index::new))
        }
        _ => Addressee::Malformed,
    }
}

/// Appends `text` as a JSON string.
pub(super) fn quote(text: &str, out: &mut String) {
    // A string has no reason to fail as JSON.
    out.push_str(&serde_json::to_string(text).unwrap_or_default());
}

/// Whether brackets nest deeper than `limit` outside of strings. Exact for JSON; what is not JSON is refused later.
fn deeper_than(limit: usize, text: &[u8]) -> bool {
    // Nearly every message has fewer opening brackets than may nest, and counting them takes no branch.
    if opening_brackets(text) <= limit {
        return false;
    }
    let mut depth = 0_usize;
    let mut in_string = false;
    let mut bytes = text.iter();
    while let Some(&byte) = bytes.next() {
        match byte {
            b'"' => in_string = !in_string,
            // What it escapes is no quote. Outside of strings JSON has none.
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

/// How many bytes of `text` are `{` or `[`, which differ in one bit.
fn opening_brackets(text: &[u8]) -> usize {
    // Counted in bytes, as many as one can count, since the compiler makes that 16 or 32 at a time.
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
        // A name is read raw, as a value is: it need not be Unicode, and only so is it checked for raw control characters.
        while let Some(name) = map.next_key::<&'a RawValue>()? {
            let value = map.next_value::<&'a RawValue>()?.get();
            members.last = Some(value);
            let Some(member) = member(name.get()).filter(|member| self.wanted.contains(member)) else {
                continue;
            };
            let place = match member {
                Member::Type => &mut members.kind,
                Member::Key => &mut members.key,
                Member::Index => &mut members.index,
                Member::Data => &mut members.data,
            };
            if place.replace(value).is_some() {
                *self.twice = Some(member);
                return Err(A::Error::custom(""));
            }
        }
        Ok(members)
    }
}

/// Which of the members that the server reads has this name, a raw JSON string.
fn member(name: &str) -> Option<Member> {
    match &*string(name)? {
        "type" => Some(Member::Type),
        "key" => Some(Member::Key),
        "index" => Some(Member::Index),
        "data" => Some(Member::Data),
        _ => None,
    }
}
