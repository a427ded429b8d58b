//! Owns how far one joiner and its opener got with each other: whether it was the signaling that failed, or what comes after it. Never
//! knows what they said.

use std::{
    fmt,
    time::{Duration, Instant},
};

use crate::figures::Reached;

/// A joiner's time with its opener.
pub(crate) struct Pairing {
    joined: Instant,
    /// Messages of the joiner, and of the opener to it.
    said: [u64; 2],
    /// After how long each first said something.
    first: [Option<Duration>; 2],
    /// After how long either last did.
    last: Option<Duration>,
}

/// Who says something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Speaker {
    Joiner,
    Opener,
}

impl Pairing {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            joined: now,
            said: [0; 2],
            first: [None; 2],
            last: None,
        }
    }

    /// Somebody has said something. The stages that are reached by it.
    pub(crate) fn speak(&mut self, speaker: Speaker, now: Instant) -> impl Iterator<Item = Reached> + use<> {
        let (own, other) = match speaker {
            Speaker::Joiner => (0, 1),
            Speaker::Opener => (1, 0),
        };
        let after = now.saturating_duration_since(self.joined);
        self.said[own] += 1;
        self.last = Some(after);
        let is_first = self.first[own].is_none();
        if is_first {
            self.first[own] = Some(after);
        }
        let stage = [Reached::JoinerSpoke, Reached::OpenerSpoke][own];
        let both = (is_first && self.first[other].is_some()).then_some(Reached::BothSpoke);
        is_first.then_some(stage).into_iter().chain(both)
    }
}

/// In one line, for the log.
impl fmt::Display for Pairing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [of_joiner, of_opener] = self.said;
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
        write!(f, ", in {:.3} s", self.joined.elapsed().as_secs_f64())
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn each_stage_is_reached_once() {
        let start = Instant::now();
        let mut pairing = Pairing::new(start);
        let mut speak =
            |speaker, millis| -> Vec<_> { pairing.speak(speaker, start + Duration::from_millis(millis)).collect() };
        assert_eq!(speak(Speaker::Joiner, 10), [Reached::JoinerSpoke]);
        assert_eq!(speak(Speaker::Joiner, 20), []);
        assert_eq!(speak(Speaker::Opener, 30), [Reached::OpenerSpoke, Reached::BothSpoke]);
        assert_eq!(speak(Speaker::Opener, 40), []);
        assert_eq!(speak(Speaker::Joiner, 50), []);
        let line = pairing.to_string();
        assert!(
            line.starts_with(
                "3 messages of the joiner (first after 0.010 s), 2 of the opener (first after 0.030 s), the last after 0.050 s, in "
            ),
            "{line}"
        );
    }

    #[test]
    fn an_opener_may_speak_first() {
        let start = Instant::now();
        let mut pairing = Pairing::new(start);
        assert_eq!(
            pairing.speak(Speaker::Opener, start).collect::<Vec<_>>(),
            [Reached::OpenerSpoke]
        );
        assert_eq!(
            pairing.speak(Speaker::Joiner, start).collect::<Vec<_>>(),
            [Reached::JoinerSpoke, Reached::BothSpoke]
        );
    }
}
