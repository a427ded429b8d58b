//! Owns what is carried from one peer to the other: the sender's own bytes, and where an `index` goes among them. Never parses
//! (`scan` does) and never re-serialises.

use alloc::{boxed::Box, string::String};
use core::{
    fmt::{self, Write},
    ops::Range,
};

use crate::{Index, Shape};

/// One JSON value as its sender wrote it, to the byte.
///
/// Made by [`Dialect::decode`](crate::Dialect::decode). `Debug` shows its length only: payloads do not belong in logs.
pub struct Payload {
    text: Box<str>,
    spot: Spot,
}

/// Where an index goes, for recipients that find it among the sender's own members.
pub(super) enum Spot {
    /// Nowhere: it is no object, or one with several members of that name.
    Nowhere,
    /// In place of these bytes, behind this lead.
    At(Range<u32>, Lead),
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

impl Spot {
    /// In the object `text`, in which `index` is the value of that member, and `last` that of the last one, if there are such.
    pub(super) fn within(text: &str, index: Option<&str>, last: Option<&str>) -> Self {
        let (place, lead) = match (index, last) {
            (Some(index), _) => (super::scan::place(text, index), Lead::Value),
            (None, Some(last)) => {
                let end = super::scan::place(text, last).end;
                (end..end, Lead::NextMember)
            }
            // Only white space can come before the brace of an object without members.
            (None, None) => {
                let inside = text.find('{').map_or(0, |brace| brace + 1);
                (inside..inside, Lead::FirstMember)
            }
        };
        // `decode` takes no text that is longer than an i32 can say.
        Self::At(place.start as u32..place.end as u32, lead)
    }
}

impl Payload {
    pub(super) fn new(text: &str, spot: Spot) -> Self {
        Self {
            text: text.into(),
            spot,
        }
    }

    /// The text as it came.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// What kind of value it is: an object, if it can go to a peer of the plain dialect.
    pub fn shape(&self) -> Shape {
        match self.spot {
            Spot::Nowhere => Shape::Any,
            Spot::At(..) => Shape::Object,
        }
    }

    /// Appends the text with `"index":N` in it: as its last member, or in place of the value of an `index` that is there. What has no
    /// place for an index, which the hub gives to nobody who needs one, is appended as it is.
    ///
    /// ```
    /// use sigver_core::{Dialect, InboundMessage, Index, Limits};
    ///
    /// let spliced = |text| match Dialect::Plain.decode(text, &Limits::default(), || None) {
    ///     Ok(InboundMessage::Data { payload, .. }) => {
    ///         let mut out = String::new();
    ///         payload.splice(Index::new(7), &mut out);
    ///         out
    ///     }
    ///     other => panic!("{other:?} is no data"),
    /// };
    /// assert_eq!(spliced(r#"{"sdp": "v=0" }"#), r#"{"sdp": "v=0","index":7 }"#);
    /// assert_eq!(spliced(r#"{"index": 1, "sdp": "v=0"}"#), r#"{"index": 7, "sdp": "v=0"}"#);
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

impl Payload {
    /// As [`as_str`](Self::as_str), without a copy.
    pub(super) fn into_text(self) -> String {
        self.text.into()
    }
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Payload({} bytes)", self.text.len())
    }
}
