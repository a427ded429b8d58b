//! Whether what was sent has arrived: each payload once, whole, in order, and nowhere else.
//!
//! Owns what a receiver expects; reads no socket.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use crate::payload::{self, Side, Sizes, Stream};

/// What has been found so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Arrived, each byte as it should be.
    pub delivered: u64,
    /// Never arrived.
    pub lost: u64,
    /// Arrived after one that was sent later.
    pub reordered: u64,
    /// Arrived again.
    pub duplicated: u64,
    /// Arrived at a socket that it was not meant for.
    pub misdelivered: u64,
    /// Arrived with other bytes, or with another index.
    pub corrupted: u64,
}

impl Tally {
    /// Whether nothing went wrong.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        *self
            == Self {
                delivered: self.delivered,
                ..Self::default()
            }
    }

    /// The same counts in the order of the fields, with their names.
    #[must_use]
    pub fn named(&self) -> [(&'static str, u64); 6] {
        [
            ("delivered", self.delivered),
            ("lost", self.lost),
            ("reordered", self.reordered),
            ("duplicated", self.duplicated),
            ("misdelivered", self.misdelivered),
            ("corrupted", self.corrupted),
        ]
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts: Vec<String> = self
            .named()
            .iter()
            .map(|(name, count)| format!("{count} {name}"))
            .collect();
        f.write_str(&counts.join(", "))
    }
}

/// What one socket may receive.
#[derive(Debug)]
pub struct Inbox {
    streams: BTreeMap<Stream, Progress>,
    sizes: Sizes,
}

#[derive(Debug, Default)]
struct Progress {
    /// One more than the highest number seen.
    next: u32,
    /// Numbers below `next` that have not been seen.
    missing: BTreeSet<u32>,
}

impl Inbox {
    /// An inbox for those streams, whose payloads have those sizes.
    #[must_use]
    pub fn new(streams: impl IntoIterator<Item = Stream>, sizes: Sizes) -> Self {
        Self {
            streams: streams
                .into_iter()
                .map(|stream| (stream, Progress::default()))
                .collect(),
            sizes,
        }
    }

    /// Counts a text that came, and says which of the inbox's streams it belongs to.
    pub fn receive(&mut self, text: &[u8], tally: &mut Tally) -> Option<Stream> {
        let Some((stream, number)) = payload::parse_name(text) else {
            tally.corrupted += 1;
            return None;
        };
        let Some(progress) = self.streams.get_mut(&stream) else {
            tally.misdelivered += 1;
            return None;
        };
        let sent = payload::build(stream, number, self.sizes);
        let whole = match stream.from {
            Side::Opener => text == sent,
            Side::Joiner => payload::is_spliced(text, &sent, stream.joiner),
        };
        if !whole {
            tally.corrupted += 1;
            // The number may be what is wrong with it.
            if number != progress.next {
                return Some(stream);
            }
        } else if progress.missing.contains(&number) {
            tally.reordered += 1;
        } else if number < progress.next {
            tally.duplicated += 1;
        } else {
            tally.delivered += 1;
        }
        progress.missing.remove(&number);
        if number >= progress.next {
            progress.missing.extend(progress.next..number);
            progress.next = number + 1;
        }
        Some(stream)
    }

    /// Counts what has not come of `sent` payloads a stream.
    pub fn finish(&self, sent: u32, tally: &mut Tally) {
        for progress in self.streams.values() {
            tally.lost += progress.missing.len() as u64;
            tally.lost += u64::from(sent.saturating_sub(progress.next));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZES: Sizes = Sizes { least: 20, most: 400 };
    const MINE: Stream = Stream {
        key: 4,
        joiner: 2,
        from: Side::Opener,
    };

    fn check(receive: &[Vec<u8>], sent: u32, expected: Tally) {
        let mut tally = Tally::default();
        let mut inbox = Inbox::new([MINE], SIZES);
        for text in receive {
            inbox.receive(text, &mut tally);
        }
        inbox.finish(sent, &mut tally);
        assert_eq!(tally, expected);
    }

    fn text(number: u32) -> Vec<u8> {
        payload::build(MINE, number, SIZES)
    }

    #[test]
    fn in_order_is_clean() {
        let expected = Tally {
            delivered: 3,
            ..Tally::default()
        };
        assert!(expected.is_clean());
        check(&[text(0), text(1), text(2)], 3, expected);
    }

    #[test]
    fn late_missing_and_double() {
        let expected = Tally {
            delivered: 3,
            lost: 2,
            reordered: 1,
            duplicated: 1,
            ..Tally::default()
        };
        assert!(!expected.is_clean());
        check(&[text(0), text(2), text(1), text(4), text(0)], 6, expected);
    }

    #[test]
    fn another_s_and_changed() {
        let other = Stream { joiner: 3, ..MINE };
        let mut changed = text(0);
        changed.push(b' ');
        let mut renumbered = text(1);
        let digit = renumbered.iter().position(|&byte| byte == b'1').expect("its number");
        renumbered[digit] = b'9';
        let expected = Tally {
            delivered: 1,
            lost: 1,
            misdelivered: 1,
            corrupted: 3,
            ..Tally::default()
        };
        let nothing = b"{}".to_vec();
        let received = [payload::build(other, 0, SIZES), changed, nothing, renumbered, text(2)];
        check(&received, 3, expected);
    }

    #[test]
    fn a_joiner_s_text_needs_its_index() {
        let stream = Stream {
            from: Side::Joiner,
            ..MINE
        };
        let sent = payload::build(stream, 0, SIZES);
        let spliced = |index: u32| {
            let mut text = sent.clone();
            text.pop();
            text.extend_from_slice(format!(",\"index\":{index}}}").as_bytes());
            text
        };
        for (text, clean) in [(spliced(2), true), (spliced(3), false), (sent.clone(), false)] {
            let mut tally = Tally::default();
            let mut inbox = Inbox::new([stream], SIZES);
            assert_eq!(inbox.receive(&text, &mut tally), Some(stream));
            assert_eq!(tally.is_clean(), clean);
        }
    }
}
