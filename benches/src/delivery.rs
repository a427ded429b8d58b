//! Checks that each payload arrives once, unchanged, in order, and at the right connection only.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use crate::payload::{self, Side, SizeRange, Stream};

/// Counts of payloads by outcome.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeliveryCounts {
    /// Received once, in order and unchanged.
    pub delivered: u64,
    /// Not received.
    pub lost: u64,
    /// Received after a payload that was sent later.
    pub reordered: u64,
    /// Received more than once.
    pub duplicated: u64,
    /// Received on the wrong connection.
    pub misdelivered: u64,
    /// Received with changed bytes or the wrong index.
    pub corrupted: u64,
}

impl DeliveryCounts {
    /// Returns whether all counts but `delivered` are zero.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        *self
            == Self {
                delivered: self.delivered,
                ..Self::default()
            }
    }

    /// Returns the counts with their names, in the order of the fields.
    #[must_use]
    pub fn by_name(&self) -> [(&'static str, u64); 6] {
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

impl fmt::Display for DeliveryCounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts: Vec<String> = self
            .by_name()
            .iter()
            .map(|(name, count)| format!("{count} {name}"))
            .collect();
        f.write_str(&counts.join(", "))
    }
}

/// Checks the payloads that one connection receives.
#[derive(Debug)]
pub struct DeliveryChecker {
    streams: BTreeMap<Stream, Progress>,
    sizes: SizeRange,
}

#[derive(Debug, Default)]
struct Progress {
    /// One more than the highest number received.
    next: u32,
    /// Numbers below `next` that have not been received.
    missing: BTreeSet<u32>,
}

impl DeliveryChecker {
    /// Creates a checker for a connection that receives `streams`, with payloads of `sizes`.
    #[must_use]
    pub fn new(streams: impl IntoIterator<Item = Stream>, sizes: SizeRange) -> Self {
        Self {
            streams: streams
                .into_iter()
                .map(|stream| (stream, Progress::default()))
                .collect(),
            sizes,
        }
    }

    /// Checks a received text and updates `counts`. Returns its stream, if that is one of the checker's.
    pub fn receive(&mut self, text: &[u8], counts: &mut DeliveryCounts) -> Option<Stream> {
        let Some((stream, number)) = payload::parse_id(text) else {
            counts.corrupted += 1;
            return None;
        };
        let Some(progress) = self.streams.get_mut(&stream) else {
            counts.misdelivered += 1;
            return None;
        };
        let sent = payload::build(stream, number, self.sizes);
        let is_intact = match stream.from {
            Side::Opener => text == sent,
            Side::Joiner => payload::equals_with_index(text, &sent, stream.joiner),
        };
        if !is_intact {
            counts.corrupted += 1;
            // The number itself may be corrupted.
            if number != progress.next {
                return Some(stream);
            }
        } else if progress.missing.contains(&number) {
            counts.reordered += 1;
        } else if number < progress.next {
            counts.duplicated += 1;
        } else {
            counts.delivered += 1;
        }
        progress.missing.remove(&number);
        if number >= progress.next {
            progress.missing.extend(progress.next..number);
            progress.next = number + 1;
        }
        Some(stream)
    }

    /// Counts the payloads that are missing, out of `sent` in each stream, as lost.
    pub fn finish(&self, sent: u32, counts: &mut DeliveryCounts) {
        for progress in self.streams.values() {
            counts.lost += progress.missing.len() as u64;
            counts.lost += u64::from(sent.saturating_sub(progress.next));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAYLOAD_SIZES: SizeRange = SizeRange { min: 20, max: 400 };
    const STREAM: Stream = Stream {
        key: 4,
        joiner: 2,
        from: Side::Opener,
    };

    fn check(receive: &[Vec<u8>], sent: u32, expected: DeliveryCounts) {
        let mut counts = DeliveryCounts::default();
        let mut checker = DeliveryChecker::new([STREAM], PAYLOAD_SIZES);
        for text in receive {
            checker.receive(text, &mut counts);
        }
        checker.finish(sent, &mut counts);
        assert_eq!(counts, expected);
    }

    fn text(number: u32) -> Vec<u8> {
        payload::build(STREAM, number, PAYLOAD_SIZES)
    }

    #[test]
    fn payloads_in_order_are_clean() {
        let expected = DeliveryCounts {
            delivered: 3,
            ..DeliveryCounts::default()
        };
        assert!(expected.is_clean());
        check(&[text(0), text(1), text(2)], 3, expected);
    }

    #[test]
    fn late_missing_and_repeated_payloads_are_counted() {
        let expected = DeliveryCounts {
            delivered: 3,
            lost: 2,
            reordered: 1,
            duplicated: 1,
            ..DeliveryCounts::default()
        };
        assert!(!expected.is_clean());
        check(&[text(0), text(2), text(1), text(4), text(0)], 6, expected);
    }

    #[test]
    fn misdelivered_and_changed_payloads_are_counted() {
        let other = Stream { joiner: 3, ..STREAM };
        let mut changed = text(0);
        changed.push(b' ');
        let mut renumbered = text(1);
        let digit = renumbered.iter().position(|&byte| byte == b'1').expect("the number");
        renumbered[digit] = b'9';
        let expected = DeliveryCounts {
            delivered: 1,
            lost: 1,
            misdelivered: 1,
            corrupted: 3,
            ..DeliveryCounts::default()
        };
        let nothing = b"{}".to_vec();
        let received = [
            payload::build(other, 0, PAYLOAD_SIZES),
            changed,
            nothing,
            renumbered,
            text(2),
        ];
        check(&received, 3, expected);
    }

    #[test]
    fn joiner_payload_without_right_index_is_corrupted() {
        let stream = Stream {
            from: Side::Joiner,
            ..STREAM
        };
        let sent = payload::build(stream, 0, PAYLOAD_SIZES);
        let spliced = |index: u32| {
            let mut text = sent.clone();
            text.pop();
            text.extend_from_slice(format!(",\"index\":{index}}}").as_bytes());
            text
        };
        for (text, clean) in [(spliced(2), true), (spliced(3), false), (sent.clone(), false)] {
            let mut counts = DeliveryCounts::default();
            let mut checker = DeliveryChecker::new([stream], PAYLOAD_SIZES);
            assert_eq!(checker.receive(&text, &mut counts), Some(stream));
            assert_eq!(counts.is_clean(), clean);
        }
    }
}
