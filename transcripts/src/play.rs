//! Owns the playing of a transcript, step by step. Never knows what it plays against.

use std::{collections::BTreeMap, fmt};

use crate::{Frame, StepKind, Transcript};

/// What a transcript is played against.
pub trait Stage {
    /// Connects a client that offers this subprotocol, or none.
    fn connect(&mut self, who: char, subprotocol: Option<&str>);
    /// Sends from a client, and returns when it has been handled. Sending on a connection that is closed is no error.
    fn send(&mut self, who: char, frame: &Frame);
    /// What a client receives next; something is expected, so it may take a while.
    fn receive(&mut self, who: char) -> Seen;
    /// What a client has received and not yet seen: [`Seen::Nothing`] is expected.
    fn leftover(&mut self, who: char) -> Seen;
    /// Sends a close frame from a client, which is what it sees an answer to next.
    fn close(&mut self, who: char, code: Option<u16>);
    /// Ends a client's connection without a close frame, and returns when that has been handled.
    fn vanish(&mut self, who: char);
    /// Lets the role deadline pass.
    fn wait_role_deadline(&mut self);
}

/// What a client has received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// A text frame.
    Text(String),
    /// A close frame, with its code (none if it has none) and text.
    Close(Option<u16>, String),
    /// The end of the connection, without a close frame.
    Lost,
    /// Nothing, and the connection is alive.
    Nothing,
}

/// Where a transcript and what happened part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The transcript's name.
    pub transcript: String,
    /// The line, or `None` at the end.
    pub line: Option<usize>,
    /// The client.
    pub who: char,
    /// What should have been seen.
    pub expected: Seen,
    /// What was seen.
    pub seen: Seen,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            transcript,
            line,
            who,
            expected,
            seen,
        } = self;
        match line {
            Some(line) => write!(f, "{transcript}.txt:{line}: ")?,
            None => write!(f, "{transcript}.txt, at its end: ")?,
        }
        write!(f, "{who} should see {expected:?} and saw {seen:?}")
    }
}

impl std::error::Error for Failure {}

/// Plays a transcript.
///
/// # Errors
///
/// At the first thing that a client should have seen and did not, or saw and should not have.
pub fn play(transcript: &Transcript, stage: &mut impl Stage) -> Result<(), Failure> {
    // Whether each client's connection has come to its end.
    let mut ended = BTreeMap::new();
    // The key that the server made last.
    let mut made = String::new();
    let check = |line, who, seen: Seen, expected: Seen| {
        if seen == expected {
            Ok(())
        } else {
            Err(Failure {
                transcript: transcript.name.clone(),
                line,
                who,
                expected,
                seen,
            })
        }
    };
    for step in &transcript.steps {
        let line = Some(step.line);
        if let Some(who) = step.kind.who() {
            ended.entry(who).or_insert_with(|| {
                stage.connect(who, step.kind.subprotocol());
                false
            });
        }
        match &step.kind {
            StepKind::Connects(..) => {}
            StepKind::Sends(who, frame) => stage.send(*who, frame),
            StepKind::SendsMade(who, text) => stage.send(*who, &Frame::Text(text.replacen('*', &made, 1).into_bytes())),
            StepKind::ReceivesMade(who, text) => {
                let seen = stage.receive(*who);
                if let Seen::Text(seen) = &seen {
                    made = in_place_of_star(text, seen).unwrap_or("*").to_owned();
                }
                check(line, *who, seen, Seen::Text(text.replacen('*', &made, 1)))?;
            }
            StepKind::Receives(who, text) => check(line, *who, stage.receive(*who), Seen::Text(text.clone()))?,
            StepKind::Closed(who, code, text) => {
                check(line, *who, stage.receive(*who), Seen::Close(Some(*code), text.clone()))?;
                ended.insert(*who, true);
            }
            StepKind::Closes(who, code) => {
                stage.close(*who, *code);
                check(line, *who, stage.receive(*who), Seen::Close(*code, String::new()))?;
                ended.insert(*who, true);
            }
            StepKind::Vanishes(who) => {
                stage.vanish(*who);
                ended.insert(*who, true);
            }
            StepKind::WaitRoleDeadline => stage.wait_role_deadline(),
        }
    }
    for (who, _) in ended.into_iter().filter(|(_, ended)| !ended) {
        check(None, who, stage.leftover(who), Seen::Nothing)?;
    }
    Ok(())
}

/// What stands in `text` where `pattern` has `*`.
fn in_place_of_star<'a>(pattern: &str, text: &'a str) -> Option<&'a str> {
    let (before, after) = pattern.split_once('*')?;
    text.strip_prefix(before)?.strip_suffix(after)
}
