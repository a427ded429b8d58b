//! The counters of an endpoint.

use core::fmt;

use crate::{
    endpoint::pairing::PairingStage,
    frame::Frame,
    reason::{CloseReason, Refusal},
    stats::Stats,
};

/// The counters of an [`Endpoint`](crate::Endpoint) since it was created, and its gauges.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Counters {
    /// The hub's gauges and counters.
    pub hub: Stats,
    /// Text messages from clients.
    pub received: Traffic,
    /// Text messages to clients, counted when they are returned. Not all of them arrive: a driver may discard what waits for a slow consumer
    /// that is closed, or for a client that has gone.
    pub sent: Traffic,
    /// Refusals and closes, by reason.
    pub refused: Refused,
    /// Gauge: joiners that are not read, because their opener reads more slowly than its joiners send.
    pub blocked_joiners: u32,
    /// Gauge: what all connections together have not read, as [`Frame::cost`](crate::Frame::cost) counts it, and what joiners have sent that
    /// waits.
    pub backlog_bytes: u64,
    /// Connections that were closed or aborted because all backlogs together exceeded
    /// [`EndpointConfig::backlog_total_bytes`](crate::EndpointConfig::backlog_total_bytes).
    pub evicted: u64,
    /// How often each stage was reached, in the order of [`PairingStage::ALL`].
    pub pairings: [u64; PairingStage::ALL.len()],
}

impl Counters {
    pub(super) fn reach(&mut self, stage: PairingStage) {
        self.pairings[stage as usize] += 1;
    }

    pub(super) fn count_sent(&mut self, frame: &Frame) {
        if let Frame::Text(text) = frame {
            self.sent.add(text.len());
        }
    }
}

/// A number of messages and their bytes, without frame headers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Messages.
    pub messages: u64,
    /// Bytes of their texts.
    pub bytes: u64,
}

impl Traffic {
    /// Counts a message of this length in bytes.
    pub fn add(&mut self, bytes: usize) {
        self.messages += 1;
        self.bytes += bytes as u64;
    }
}

impl fmt::Display for Traffic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({} bytes)", self.messages, self.bytes)
    }
}

/// The number of refusals and closes, by reason. A close of the plain dialect and the error of `sigver.v1` with the same meaning have the
/// same reason.
///
/// The end of a role and the shutdown of the server are not refusals.
#[derive(Clone, Debug)]
pub struct Refused {
    by_reason: [u64; CloseReason::ALL.len()],
    // These two have no close reason.
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
    pub(super) fn add_close(&mut self, reason: CloseReason) {
        let place = CloseReason::ALL.iter().position(|one| *one == reason);
        if let (Some(place), true) = (place, is_refusal(reason)) {
            self.by_reason[place] += 1;
        }
    }

    pub(super) fn add(&mut self, refusal: &Refusal) {
        match (refusal.closes(), refusal) {
            (Some(reason), _) => self.add_close(reason),
            (None, Refusal::WrongRole) => self.wrong_role += 1,
            (None, Refusal::UnknownIndex { .. }) => self.unknown_index += 1,
            (
                None,
                Refusal::KeyTaken { .. }
                | Refusal::UnknownKey { .. }
                | Refusal::TooManyJoiners { .. }
                | Refusal::TooManyAttempts { .. }
                | Refusal::NotAllowed { .. }
                | Refusal::HasRole
                | Refusal::NoRole
                | Refusal::NoIndex
                | Refusal::NotAnObject { .. },
            ) => {}
        }
    }

    /// Returns the [name](CloseReason::name) of each reason, such as `key-taken`, and its count.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let closes = CloseReason::ALL.iter().zip(self.by_reason);
        closes
            .filter(|(reason, _)| is_refusal(**reason))
            .map(|(reason, count)| (reason.name(), count))
            .chain([("wrong-role", self.wrong_role), ("unknown-index", self.unknown_index)])
    }
}

/// Whether a close for this reason is a refusal, and not the end of a role or of the server.
fn is_refusal(reason: CloseReason) -> bool {
    !matches!(
        reason,
        CloseReason::ShuttingDown
            | CloseReason::OpenerLeft
            | CloseReason::Kicked
            | CloseReason::TokenExpired
            | CloseReason::ClosedByOperator
    )
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;
    use crate::id::Index;

    #[test]
    fn refusals_have_one_label_in_both_dialects() {
        let mut refused = Refused::default();
        refused.add_close(CloseReason::TooManyJoiners);
        refused.add(&Refusal::HasRole);
        refused.add_close(CloseReason::HasRole);
        refused.add_close(CloseReason::OpenerLeft);
        refused.add_close(CloseReason::ClosedByOperator);
        refused.add_close(CloseReason::TokenExpired);
        refused.add(&Refusal::WrongRole);
        refused.add(&Refusal::UnknownIndex {
            index: Some(Index::new(7)),
        });
        let counted: Vec<_> = refused.iter().filter(|(_, count)| *count > 0).collect();
        let expected = [
            ("has-role", 2),
            ("too-many-joiners", 1),
            ("wrong-role", 1),
            ("unknown-index", 1),
        ];
        assert_eq!(counted, expected);
    }

    #[test]
    fn every_refusal_has_a_counter() {
        let names: Vec<_> = Refused::default().iter().map(|(name, _)| name).collect();
        for name in Refusal::NAMES {
            assert!(names.contains(name), "{name}");
        }
    }
}
