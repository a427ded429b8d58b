//! Plays a transcript against a [`Stage`], step by step.

use std::{collections::BTreeMap, fmt, io};

use crate::{Frame, StepKind, Transcript, Wait};

/// The subject under test and its clients. An error fails the transcript.
pub trait Stage {
    /// Connects a client, which offers this subprotocol or none.
    fn connect(&mut self, who: char, subprotocol: Option<&str>) -> io::Result<()>;
    /// Sends a frame from a client and waits until it is handled. Sending on a closed connection is not an error.
    fn send(&mut self, who: char, frame: &Frame) -> io::Result<()>;
    /// Waits for the next frame to a client and consumes it. Called if a frame is expected.
    fn receive(&mut self, who: char) -> io::Result<Seen>;
    /// Returns the next frame that a client has received, without consuming it. Called if [`Seen::Nothing`] is expected.
    fn leftover(&mut self, who: char) -> io::Result<Seen>;
    /// Sends a close frame from a client. Its reply is the next frame that is expected.
    fn close(&mut self, who: char, code: Option<u16>) -> io::Result<()>;
    /// Disconnects a client without a close frame and waits until the disconnect is handled.
    fn vanish(&mut self, who: char) -> io::Result<()>;
    /// Waits until this time has passed.
    fn wait(&mut self, time: Wait) -> io::Result<()>;

    /// Returns whether a received frame matches the expected one. By default, they must be equal.
    fn is_same(&self, who: char, expected: &Seen, seen: &Seen) -> bool {
        let _ = who;
        expected == seen
    }

    /// Returns the key that the server generated: the part of `text` in place of the `*` in `pattern`.
    fn made(&self, pattern: &str, text: &str) -> Option<String> {
        let (before, after) = pattern.split_once('*')?;
        Some(text.strip_prefix(before)?.strip_suffix(after)?.to_owned())
    }
}

/// An event on a client's connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// A text frame.
    Text(String),
    /// A binary frame. The protocol has none, so it is never expected.
    Binary(Vec<u8>),
    /// A close frame with its code, if any, and text.
    Close(Option<u16>, String),
    /// The connection was closed without a close frame.
    Lost,
    /// Nothing was received, and the connection is open.
    Nothing,
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Binary(bytes) => write!(f, "a binary frame of {} bytes", bytes.len()),
            Self::Close(None, _) => f.write_str("close without a code"),
            Self::Close(Some(code), text) if text.is_empty() => write!(f, "close {code}"),
            Self::Close(Some(code), text) => write!(f, "close {code} {text}"),
            Self::Lost => f.write_str("connection closed without a close frame"),
            Self::Nothing => f.write_str("nothing"),
        }
    }
}

/// The first difference between a transcript and the behaviour of the stage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The transcript's name.
    pub transcript: String,
    /// The line, or `None` if the difference was found after the last step.
    pub line: Option<usize>,
    /// The client, if the step has one.
    pub who: Option<char>,
    /// The expected frame or action.
    pub expected: String,
    /// The received frame, or the error.
    pub seen: String,
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
            None => write!(f, "{transcript}.txt: after the last step: ")?,
        }
        if let Some(who) = who {
            write!(f, "{who}: ")?;
        }
        write!(f, "expected {expected:?}, seen {seen:?}")
    }
}

impl std::error::Error for Failure {}

/// Plays a transcript.
///
/// # Errors
///
/// If a client does not receive an expected frame, or receives an unexpected one, or if the stage returns an error. The first one is returned.
pub fn play(transcript: &Transcript, stage: &mut impl Stage) -> Result<(), Failure> {
    let mut ended = BTreeMap::new();
    let mut made = String::new();
    for step in &transcript.steps {
        let failure = |(expected, seen)| Failure {
            transcript: transcript.name.clone(),
            line: Some(step.line),
            who: step.kind.who(),
            expected,
            seen,
        };
        play_step(&step.kind, stage, &mut ended, &mut made).map_err(failure)?;
    }
    for (who, _) in ended.into_iter().filter(|(_, ended)| !ended) {
        let leftover = stage
            .leftover(who)
            .map_err(|error| ("a pong".into(), error.to_string()));
        let checked = leftover.and_then(|seen| check(stage, who, &seen, &Seen::Nothing));
        checked.map_err(|(expected, seen)| Failure {
            transcript: transcript.name.clone(),
            line: None,
            who: Some(who),
            expected,
            seen,
        })?;
    }
    Ok(())
}

/// The expected frame or action, and what was received in its place.
type Difference = (String, String);

/// Plays one step. `ended` maps each client to whether its connection is closed. `made` is the key that the server generated last.
fn play_step(
    step: &StepKind,
    stage: &mut impl Stage,
    ended: &mut BTreeMap<char, bool>,
    made: &mut String,
) -> Result<(), Difference> {
    fn failed(what: &str) -> impl FnOnce(io::Error) -> Difference {
        move |error| (what.to_owned(), error.to_string())
    }
    if let Some(who) = step.who().filter(|who| !ended.contains_key(who)) {
        stage.connect(who, step.subprotocol()).map_err(failed("a connection"))?;
        ended.insert(who, false);
    }
    match step {
        StepKind::Connects(..) => {}
        StepKind::Sends(who, frame) => stage.send(*who, frame).map_err(failed("the frame is handled"))?,
        StepKind::SendsMade(who, text) => {
            let frame = Frame::Text(text.replacen('*', made, 1).into_bytes());
            stage.send(*who, &frame).map_err(failed("the frame is handled"))?;
        }
        StepKind::ReceivesMade(who, text) => {
            let seen = stage.receive(*who).map_err(failed(text))?;
            if let Seen::Text(seen) = &seen {
                *made = stage.made(text, seen).unwrap_or("*".into());
            }
            check(stage, *who, &seen, &Seen::Text(text.replacen('*', made, 1)))?;
        }
        StepKind::Receives(who, text) => expect(stage, *who, &Seen::Text(text.clone()))?,
        StepKind::Closed(who, code, text) => {
            expect(stage, *who, &Seen::Close(Some(*code), text.clone()))?;
            ended.insert(*who, true);
        }
        StepKind::Closes(who, code) => {
            stage.close(*who, *code).map_err(failed("the close frame is sent"))?;
            expect(stage, *who, &Seen::Close(*code, String::new()))?;
            ended.insert(*who, true);
        }
        StepKind::Vanishes(who) => {
            stage.vanish(*who).map_err(failed("the disconnect is handled"))?;
            ended.insert(*who, true);
        }
        StepKind::Wait(time) => stage.wait(*time).map_err(failed("the time passes"))?,
    }
    Ok(())
}

/// Waits for the next frame to a client and checks it.
fn expect(stage: &mut impl Stage, who: char, expected: &Seen) -> Result<(), Difference> {
    match stage.receive(who) {
        Ok(seen) => check(stage, who, &seen, expected),
        Err(error) => Err((expected.to_string(), error.to_string())),
    }
}

fn check(stage: &impl Stage, who: char, seen: &Seen, expected: &Seen) -> Result<(), Difference> {
    if stage.is_same(who, expected, seen) {
        Ok(())
    } else {
        Err((expected.to_string(), seen.to_string()))
    }
}
