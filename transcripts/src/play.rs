//! Owns the playing of a transcript, step by step. Never knows what it plays against.

use std::{collections::BTreeMap, fmt, io};

use crate::{Frame, StepKind, Transcript};

/// What a transcript is played against. An error is a stage that is broken or gone, and fails the transcript.
pub trait Stage {
    /// Connects a client that offers this subprotocol, or none.
    fn connect(&mut self, who: char, subprotocol: Option<&str>) -> io::Result<()>;
    /// Sends from a client, and returns when it has been handled. Sending on a connection that is closed is no error.
    fn send(&mut self, who: char, frame: &Frame) -> io::Result<()>;
    /// What a client receives next; something is expected, so it may take a while.
    fn receive(&mut self, who: char) -> io::Result<Seen>;
    /// What a client has received and not yet seen: [`Seen::Nothing`] is expected.
    fn leftover(&mut self, who: char) -> io::Result<Seen>;
    /// Sends a close frame from a client, which is what it sees an answer to next.
    fn close(&mut self, who: char, code: Option<u16>) -> io::Result<()>;
    /// Ends a client's connection without a close frame, and returns when that has been handled.
    fn vanish(&mut self, who: char) -> io::Result<()>;
    /// Lets the role deadline pass.
    fn wait_role_deadline(&mut self) -> io::Result<()>;

    /// Whether what a client saw is what it should have seen: by default, to the byte.
    fn is_same(&self, who: char, expected: &Seen, seen: &Seen) -> bool {
        let _ = who;
        expected == seen
    }

    /// The key in `text` that the server made, where `pattern` has `*`: by default, what stands there.
    fn made(&self, pattern: &str, text: &str) -> Option<String> {
        let (before, after) = pattern.split_once('*')?;
        Some(text.strip_prefix(before)?.strip_suffix(after)?.to_owned())
    }
}

/// What a client has received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// A text frame.
    Text(String),
    /// A binary frame, which no server of the protocol sends.
    Binary(Vec<u8>),
    /// A close frame, with its code (none if it has none) and text.
    Close(Option<u16>, String),
    /// The end of the connection, without a close frame.
    Lost,
    /// Nothing, and the connection is alive.
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
            Self::Lost => f.write_str("the end, without a close frame"),
            Self::Nothing => f.write_str("nothing"),
        }
    }
}

/// Where a transcript and what happened part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The transcript's name.
    pub transcript: String,
    /// The line, or `None` at the end.
    pub line: Option<usize>,
    /// The client, where there is one.
    pub who: Option<char>,
    /// What should have been seen, or done.
    pub expected: String,
    /// What was seen, or went wrong.
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
            None => write!(f, "{transcript}.txt, at its end: ")?,
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
/// At the first thing that a client should have seen and did not, or saw and should not have, and where the stage breaks.
pub fn play(transcript: &Transcript, stage: &mut impl Stage) -> Result<(), Failure> {
    let mut ended = BTreeMap::new();
    let mut made = String::new();
    for step in &transcript.steps {
        let differs = |(expected, seen)| Failure {
            transcript: transcript.name.clone(),
            line: Some(step.line),
            who: step.kind.who(),
            expected,
            seen,
        };
        play_step(&step.kind, stage, &mut ended, &mut made).map_err(differs)?;
    }
    for (who, _) in ended.into_iter().filter(|(_, ended)| !ended) {
        let left = stage
            .leftover(who)
            .map_err(|error| ("an answer".into(), error.to_string()));
        let checked = left.and_then(|seen| check(stage, who, &seen, &Seen::Nothing));
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

/// What was expected, and what was seen in its place.
type Difference = (String, String);

/// Plays one step. `ended` has every client, and whether its connection has come to its end; `made` the key that the server made last.
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
        StepKind::Sends(who, frame) => stage.send(*who, frame).map_err(failed("it is handled"))?,
        StepKind::SendsMade(who, text) => {
            let frame = Frame::Text(text.replacen('*', made, 1).into_bytes());
            stage.send(*who, &frame).map_err(failed("it is handled"))?;
        }
        StepKind::ReceivesMade(who, text) => {
            let seen = stage.receive(*who).map_err(failed(text))?;
            if let Seen::Text(seen) = &seen {
                *made = stage.made(text, seen).unwrap_or("*".into());
            }
            check(stage, *who, &seen, &Seen::Text(text.replacen('*', made, 1)))?;
        }
        StepKind::Receives(who, text) => see(stage, *who, &Seen::Text(text.clone()))?,
        StepKind::Closed(who, code, text) => {
            see(stage, *who, &Seen::Close(Some(*code), text.clone()))?;
            ended.insert(*who, true);
        }
        StepKind::Closes(who, code) => {
            stage.close(*who, *code).map_err(failed("it is sent"))?;
            see(stage, *who, &Seen::Close(*code, String::new()))?;
            ended.insert(*who, true);
        }
        StepKind::Vanishes(who) => {
            stage.vanish(*who).map_err(failed("its connection ends"))?;
            ended.insert(*who, true);
        }
        StepKind::WaitRoleDeadline => stage.wait_role_deadline().map_err(failed("time passes"))?,
    }
    Ok(())
}

/// Waits for what a client receives next, and checks it.
fn see(stage: &mut impl Stage, who: char, expected: &Seen) -> Result<(), Difference> {
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
