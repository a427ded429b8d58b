//! Owns what is carried from one peer to the other: the sender's own bytes, and where an `index` goes among them. Never parses
//! (`scan` does) and never re-serialises.

use alloc::{boxed::Box, string::String};
use core::{
    fmt::{self, Write},
    ops::Range,
};

use crate::Index;

/// One JSON object as its sender wrote it, to the byte.
///
/// Made by [`plain::decode`](crate::wire::plain::decode). `Debug` shows its length only: payloads do not belong in logs.
pub struct Payload {
    text: Box<str>,
    /// The bytes that an index takes the place of: the value of an `index` that is there, or the empty range behind the last
    /// member.
    spot: Range<u32>,
    lead: Lead,
}

/// What has to come before the number of a spliced index.
#[derive(Clone, Copy)]
pub(super) enum Lead {
    /// Nothing: the number replaces the value of an `index` that the sender wrote.
    Value,
    /// The member's name, in an object that has no member.
    FirstMember,
    /// A comma and the member's name.
    NextMember,
}

impl Payload {
    pub(super) fn new(text: &str, spot: Range<usize>, lead: Lead) -> Self {
        Self {
            text: text.into(),
            // `decode` takes no text that is longer than an i32 can say.
            spot: spot.start as u32..spot.end as u32,
            lead,
        }
    }

    /// The text as it came.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Appends the text with `"index":N` in it: as its last member, or in place of the value of an `index` that is there.
    pub fn splice(&self, index: Index, out: &mut String) {
        let (head, tail) = (
            &self.text[..self.spot.start as usize],
            &self.text[self.spot.end as usize..],
        );
        let lead = match self.lead {
            Lead::Value => "",
            Lead::FirstMember => r#""index":"#,
            Lead::NextMember => r#","index":"#,
        };
        // The longest number has ten digits.
        out.reserve(self.text.len() + lead.len() + 10);
        out.push_str(head);
        out.push_str(lead);
        // Writing to a `String` does not fail.
        let _ = write!(out, "{index}");
        out.push_str(tail);
    }
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Payload({} bytes)", self.text.len())
    }
}
