//! Owns what the relay counts: traffic, how long messages took, who was refused and why, how far pairings got. Plain numbers of one thread,
//! which it gives away as a copy now and then. Never formats them: `metrics` does.

use std::{collections::BTreeMap, fmt, time::Duration};

use sigver_core::{CloseReason, Refusal, Stats};

use crate::answer::Answer;

/// Everything that is counted, since the server began.
#[derive(Clone, Default)]
pub(crate) struct Figures {
    pub(crate) hub: Stats,
    pub(crate) received: Traffic,
    pub(crate) sent: Traffic,
    pub(crate) relay: Times,
    pub(crate) refused: Refused,
    pub(crate) pairings: [u64; Reached::ALL.len()],
}

impl Figures {
    /// A pairing has come so far.
    pub(crate) fn reach(&mut self, stage: Reached) {
        self.pairings[stage as usize] += 1;
    }
}

/// Messages and their bytes, without frame headers.
#[derive(Clone, Copy, Default)]
pub(crate) struct Traffic {
    pub(crate) messages: u64,
    pub(crate) bytes: u64,
}

impl Traffic {
    pub(crate) fn add(&mut self, bytes: usize) {
        self.messages += 1;
        self.bytes += bytes as u64;
    }
}

impl fmt::Display for Traffic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({} bytes)", self.messages, self.bytes)
    }
}

/// Upper bounds of the times that are told apart, in microseconds.
pub(crate) const BOUNDS: [u32; 15] = [
    50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000,
];

/// How many messages took how long, from read to written.
#[derive(Clone, Default)]
pub(crate) struct Times {
    /// Up to each of [`BOUNDS`], and beyond the last.
    pub(crate) counts: [u64; BOUNDS.len() + 1],
    pub(crate) sum: Duration,
}

impl Times {
    pub(crate) fn add(&mut self, time: Duration) {
        let micros = time.as_micros();
        let place = BOUNDS.partition_point(|bound| u128::from(*bound) < micros);
        self.counts[place] += 1;
        self.sum += time;
    }
}

/// How often clients were refused something, by the reason. Those that the plain dialect closes and `sigver.v1` tells are counted alike.
#[derive(Clone)]
pub(crate) struct Refused {
    by_reason: [u64; CloseReason::ALL.len()],
    /// What has no reason to close for.
    wrong_role: u64,
    unknown_index: u64,
}

impl Default for Refused {
    fn default() -> Self {
        Self {
            by_reason: [0; CloseReason::ALL.len()],
            wrong_role: 0,
            unknown_index: 0,
        }
    }
}

impl Refused {
    /// A connection was closed. That of the end of a role, or of the server, is no refusal.
    pub(crate) fn add_close(&mut self, reason: CloseReason) {
        let place = CloseReason::ALL.iter().position(|one| *one == reason);
        if let (Some(place), true) = (place, is_refusal(reason)) {
            self.by_reason[place] += 1;
        }
    }

    /// A client of `sigver.v1` was told.
    pub(crate) fn add(&mut self, refusal: &Refusal) {
        match (refusal.closes(), refusal) {
            (Some(reason), _) => self.add_close(reason),
            (None, Refusal::WrongRole) => self.wrong_role += 1,
            (None, Refusal::UnknownIndex { .. }) => self.unknown_index += 1,
            (None, _) => {}
        }
    }

    /// Reasons, as labels, and how often.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (String, u64)> {
        let all = CloseReason::ALL.iter().zip(self.by_reason);
        all.filter(|(reason, _)| is_refusal(**reason))
            .map(|(reason, count)| (label(*reason), count))
            .chain([
                ("wrong-role".into(), self.wrong_role),
                ("unknown-index".into(), self.unknown_index),
            ])
    }
}

/// How often HTTP requests were refused, by status.
#[derive(Default)]
pub(crate) struct Answers(BTreeMap<u16, u64>);

impl Answers {
    pub(crate) fn add(&mut self, answer: &Answer) {
        if let Some(code) = answer.refused() {
            *self.0.entry(code).or_default() += 1;
        }
    }

    /// Statuses, as labels, and how often.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (String, u64)> {
        self.0.iter().map(|(code, count)| (format!("http-{code}"), *count))
    }
}

/// The name of a reason; that of the refusal where `sigver.v1` has one.
fn label(reason: CloseReason) -> String {
    if reason == CloseReason::KeyUnknown {
        "unknown-key".into()
    } else {
        kebab(&format!("{reason:?}"))
    }
}

fn is_refusal(reason: CloseReason) -> bool {
    !matches!(
        reason,
        CloseReason::ShuttingDown | CloseReason::OpenerLeft | CloseReason::Kicked
    )
}

/// `key-taken` of `KeyTaken`, `duplicate-type` of `Duplicate(Type)`.
fn kebab(name: &str) -> String {
    let mut label = String::new();
    for letter in name.chars().filter(char::is_ascii_alphanumeric) {
        if letter.is_ascii_uppercase() && !label.is_empty() {
            label.push('-');
        }
        label.push(letter.to_ascii_lowercase());
    }
    label
}

/// How far a pairing got, and how it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reached {
    /// A key was opened. Counted for each key, not for each joiner.
    Opened,
    Joined,
    /// The joiner said something: its offer, as a rule.
    JoinerSpoke,
    /// The opener said something to the joiner.
    OpenerSpoke,
    /// Both have: signaling works, and what fails now is not its fault.
    BothSpoke,
    EndedByJoiner,
    EndedByOpener,
    EndedByKick,
    /// The server closed the joiner for a mistake, or because it ends itself.
    EndedByServer,
}

impl Reached {
    pub(crate) const ALL: [Self; 9] = [
        Self::Opened,
        Self::Joined,
        Self::JoinerSpoke,
        Self::OpenerSpoke,
        Self::BothSpoke,
        Self::EndedByJoiner,
        Self::EndedByOpener,
        Self::EndedByKick,
        Self::EndedByServer,
    ];

    pub(crate) fn label(self) -> String {
        kebab(&format!("{self:?}"))
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use sigver_core::Index;

    use super::*;

    #[test]
    fn a_time_is_counted_once_and_in_its_place() {
        let mut times = Times::default();
        for micros in [0, 50, 51, 1_000, 2_500_000, 2_500_001] {
            times.add(Duration::from_micros(micros));
        }
        assert_eq!(times.counts.iter().sum::<u64>(), 6);
        assert_eq!((times.counts[0], times.counts[1], times.counts[4]), (2, 1, 1));
        assert_eq!((times.counts[14], times.counts[15]), (1, 1));
    }

    #[test]
    fn refusals_have_one_name_in_both_dialects() {
        let mut refused = Refused::default();
        refused.add_close(CloseReason::TooManyJoiners);
        refused.add(&Refusal::HasRole);
        refused.add_close(CloseReason::HasRole);
        refused.add_close(CloseReason::OpenerLeft);
        refused.add(&Refusal::WrongRole);
        refused.add(&Refusal::UnknownIndex { index: Index::new(7) });
        let counted: Vec<_> = refused.iter().filter(|(_, count)| *count > 0).collect();
        let expected = [
            ("has-role", 2),
            ("too-many-joiners", 1),
            ("wrong-role", 1),
            ("unknown-index", 1),
        ];
        assert_eq!(counted, expected.map(|(label, count)| (label.to_owned(), count)));
    }

    #[test]
    fn labels_are_words() {
        assert_eq!(Reached::EndedByKick.label(), "ended-by-kick");
        let labels: Vec<_> = Refused::default().iter().map(|(label, _)| label).collect();
        for code in Refusal::CODES {
            assert!(labels.iter().any(|label| label == code), "{code}");
        }
        assert!(
            labels.contains(&"duplicate-type".into()) && labels.contains(&"invalid-utf8".into()),
            "{labels:?}"
        );
        assert!(
            labels
                .iter()
                .all(|label| label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-'))
        );
    }
}
