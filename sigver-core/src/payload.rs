//! Payloads: the bytes of the sender, and the position for an `index` in them.

use alloc::{boxed::Box, string::String};
use core::{
    fmt::{self, Write},
    ops::Range,
};

use crate::{id::Index, profile::PayloadKind};

/// One JSON value as its sender wrote it, to the byte.
///
/// Created by a [`Decoder`](crate::Decoder) or by [`Payload::new`]. `Debug` shows the length only, to keep payloads out of logs.
#[derive(Clone, PartialEq, Eq)]
pub struct Payload {
    text: Box<str>,
    spot: Spot,
}

/// Where an index is inserted for recipients that expect it among the members of the value.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Spot {
    /// Nowhere: the value is not an object, or has several members with this name.
    Nowhere,
    /// In place of these bytes, after the lead.
    At(Range<u32>, Lead),
}

/// What comes before the number of a spliced index.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lead {
    /// Nothing: the number replaces the value of an `index` that the sender wrote.
    Value,
    /// The member's name, in an object without members.
    FirstMember,
    /// A comma and the member's name.
    NextMember,
}

impl Spot {
    /// Returns the spot in the object `text`. `index` is the value of its member with that name, and `last` the value of its last member,
    /// if they exist.
    pub(crate) fn within(text: &str, index: Option<&str>, last: Option<&str>) -> Self {
        let (place, lead) = match (index, last) {
            (Some(index), _) => (place(text, index), Lead::Value),
            (None, Some(last)) => {
                let end = place(text, last).end;
                (end..end, Lead::NextMember)
            }
            // Only white space can come before the brace of an object without members.
            (None, None) => {
                let inside = text.find('{').map_or(0, |brace| brace + 1);
                (inside..inside, Lead::FirstMember)
            }
        };
        // The decoder rejects longer texts.
        Self::At(place.start as u32..place.end as u32, lead)
    }
}

/// Returns the place of `value`, which was borrowed from `text`.
fn place(text: &str, value: &str) -> Range<usize> {
    let start = value.as_ptr().addr() - text.as_ptr().addr();
    start..start + value.len()
}

impl Payload {
    pub(crate) fn with_spot(text: &str, spot: Spot) -> Self {
        Self {
            text: text.into(),
            spot,
        }
    }

    /// Returns the text without a copy.
    pub fn into_string(self) -> String {
        self.text.into()
    }

    /// Returns the text as its sender wrote it.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Returns [`PayloadKind::Object`] if a peer of the plain dialect accepts the value.
    pub fn kind(&self) -> PayloadKind {
        match self.spot {
            Spot::Nowhere => PayloadKind::Any,
            Spot::At(..) => PayloadKind::Object,
        }
    }

    /// Appends the text with `"index":N`: as the last member, or in place of the value of an existing `index`. A value of the kind
    /// [`PayloadKind::Any`] is appended unchanged.
    ///
    /// ```
    /// use sigver_core::{CloseReason, Index, Limits, Payload};
    ///
    /// let spliced = |text| {
    ///     let mut out = String::new();
    ///     Payload::new(text, &Limits::default())?.splice(Index::new(7), &mut out);
    ///     Ok::<_, CloseReason>(out)
    /// };
    /// assert_eq!(spliced(r#"{"sdp": "v=0" }"#)?, r#"{"sdp": "v=0","index":7 }"#);
    /// assert_eq!(spliced(r#"{"index": 1, "sdp": "v=0"}"#)?, r#"{"index": 7, "sdp": "v=0"}"#);
    /// # Ok::<(), CloseReason>(())
    /// ```
    pub fn splice(&self, index: Index, out: &mut String) {
        let Spot::At(place, lead) = &self.spot else {
            out.push_str(&self.text);
            return;
        };
        let (head, tail) = (&self.text[..place.start as usize], &self.text[place.end as usize..]);
        let lead = match lead {
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
