//! The progress of a joiner and its opener, which shows whether signaling failed or the direct connection.

use core::{fmt, time::Duration};

use crate::time::Time;

/// A stage in the progress of a joiner and its opener, or how their pairing ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PairingStage {
    /// A key was opened, or taken over by another connection. Counted per key, not per joiner.
    Opened,
    /// A joiner joined.
    Joined,
    /// The joiner sent its first message, usually its offer.
    JoinerSpoke,
    /// The opener sent its first message to the joiner.
    OpenerSpoke,
    /// Both have sent a message. Signaling works; later failures have other causes.
    BothSpoke,
    /// The joiner left or disconnected.
    EndedByJoiner,
    /// The opener closed its key or disconnected.
    EndedByOpener,
    /// The opener kicked the joiner.
    EndedByKick,
    /// The endpoint closed the joiner: for a violation, or at shutdown.
    EndedByServer,
}

impl PairingStage {
    /// Every stage.
    pub const ALL: &'static [Self] = &[
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

    /// Returns the stage's name in metrics and logs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Opened => "opened",
            Self::Joined => "joined",
            Self::JoinerSpoke => "joiner-spoke",
            Self::OpenerSpoke => "opener-spoke",
            Self::BothSpoke => "both-spoke",
            Self::EndedByJoiner => "ended-by-joiner",
            Self::EndedByOpener => "ended-by-opener",
            Self::EndedByKick => "ended-by-kick",
            Self::EndedByServer => "ended-by-server",
        }
    }
}

/// A pairing of a joiner and its opener. `Display` is one line for a log, without keys and payloads.
#[derive(Clone, Debug)]
pub struct Pairing {
    joined: Time,
    /// Messages of the joiner, and of the opener to it.
    messages: [u64; 2],
    /// The time from the join to the first message of each.
    first: [Option<Duration>; 2],
    /// The time from the join to the last message.
    last: Option<Duration>,
    end: Option<(PairingStage, Duration)>,
}

/// The side of a pairing that sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Joiner,
    Opener,
}

impl Pairing {
    pub(super) fn new(now: Time) -> Self {
        Self {
            joined: now,
            messages: [0; 2],
            first: [None; 2],
            last: None,
            end: None,
        }
    }

    /// Records a message and returns the stages that it reaches.
    pub(super) fn record(&mut self, side: Side, now: Time) -> impl Iterator<Item = PairingStage> + use<> {
        let (own, other) = match side {
            Side::Joiner => (0, 1),
            Side::Opener => (1, 0),
        };
        let after = now.saturating_duration_since(self.joined);
        self.messages[own] += 1;
        self.last = Some(after);
        let is_first = self.first[own].is_none();
        if is_first {
            self.first[own] = Some(after);
        }
        let stage = [PairingStage::JoinerSpoke, PairingStage::OpenerSpoke][own];
        let both = (is_first && self.first[other].is_some()).then_some(PairingStage::BothSpoke);
        is_first.then_some(stage).into_iter().chain(both)
    }

    pub(super) fn end(&mut self, stage: PairingStage, now: Time) {
        self.end = Some((stage, now.saturating_duration_since(self.joined)));
    }
}

impl fmt::Display for Pairing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some((stage, _)) = self.end {
            write!(f, "{}: ", stage.name())?;
        }
        let [of_joiner, of_opener] = self.messages;
        write!(f, "{of_joiner} messages of the joiner")?;
        if let Some(first) = self.first[0] {
            write!(f, " (first after {:.3} s)", first.as_secs_f64())?;
        }
        write!(f, ", {of_opener} of the opener")?;
        if let Some(first) = self.first[1] {
            write!(f, " (first after {:.3} s)", first.as_secs_f64())?;
        }
        if let Some(last) = self.last {
            write!(f, ", the last after {:.3} s", last.as_secs_f64())?;
        }
        if let Some((_, duration)) = self.end {
            write!(f, ", in {:.3} s", duration.as_secs_f64())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use alloc::{string::ToString, vec::Vec};

    use super::*;

    fn at(millis: u64) -> Time {
        Time::from_duration(Duration::from_millis(millis))
    }

    #[test]
    fn each_stage_is_reached_once() {
        let mut pairing = Pairing::new(at(1_000));
        let mut record = |side, millis| -> Vec<_> { pairing.record(side, at(millis)).collect() };
        assert_eq!(record(Side::Joiner, 1_010), [PairingStage::JoinerSpoke]);
        assert_eq!(record(Side::Joiner, 1_020), []);
        assert_eq!(
            record(Side::Opener, 1_030),
            [PairingStage::OpenerSpoke, PairingStage::BothSpoke]
        );
        assert_eq!(record(Side::Opener, 1_040), []);
        assert_eq!(record(Side::Joiner, 1_050), []);
        pairing.end(PairingStage::EndedByKick, at(1_060));
        assert_eq!(
            pairing.to_string(),
            "ended-by-kick: 3 messages of the joiner (first after 0.010 s), 2 of the opener (first after 0.030 s), the last after 0.050 s, in 0.060 s"
        );
    }

    #[test]
    fn opener_may_send_first() {
        let mut pairing = Pairing::new(at(0));
        let mut record = |side| -> Vec<_> { pairing.record(side, at(0)).collect() };
        assert_eq!(record(Side::Opener), [PairingStage::OpenerSpoke]);
        assert_eq!(
            record(Side::Joiner),
            [PairingStage::JoinerSpoke, PairingStage::BothSpoke]
        );
    }
}
