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

    /// Called with each string that the server made.
    fn learn(&mut self, made: &str) {
        let _ = made;
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
    let mut made = Made::default();
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

/// The strings that the server made, by the name of their placeholder.
#[derive(Default)]
struct Made(BTreeMap<char, String>);

impl Made {
    fn bind(&mut self, name: char, string: String) {
        if name != '_' {
            self.0.insert(name, string);
        }
    }

    /// Returns a text with the known strings in place of their placeholders.
    fn insert_into(&self, text: &str) -> String {
        let strings = self.0.iter();
        strings.fold(text.to_owned(), |text, (name, string)| {
            text.replace(&format!("${name}"), string)
        })
    }
}

/// Returns the placeholders in a message, in order, each with the member whose value it is.
fn placeholders(message: &str) -> Vec<(String, char)> {
    let mut found = Vec::new();
    for (before, after) in message
        .match_indices("\":\"$")
        .map(|(at, lead)| (&message[..at], &message[at + lead.len()..]))
    {
        let member = before.rsplit('"').next().unwrap_or_default().to_owned();
        found.extend(after.chars().next().map(|name| (member, name)));
    }
    found
}

/// Returns the value of a member of a message, if it is a string of the form that the server makes.
fn made_string(message: &str, member: &str) -> Option<String> {
    let message: serde_json::Value = serde_json::from_str(message).ok()?;
    let string = message.get(member)?.as_str()?;
    let is_made = string.len() == 32 && string.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    is_made.then(|| string.to_owned())
}

/// The expected frame or action, and what was received in its place.
type Difference = (String, String);

/// Plays one step. `ended` maps each client to whether its connection is closed. `made` is the key that the server generated last.
fn play_step(
    step: &StepKind,
    stage: &mut impl Stage,
    ended: &mut BTreeMap<char, bool>,
    made: &mut Made,
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
            let frame = Frame::Text(made.insert_into(text).into_bytes());
            stage.send(*who, &frame).map_err(failed("the frame is handled"))?;
        }
        StepKind::ReceivesMade(who, text) => {
            let seen = stage.receive(*who).map_err(failed(text))?;
            let mut expected = made.insert_into(text);
            if let Seen::Text(seen) = &seen {
                for (member, name) in placeholders(&expected) {
                    let Some(string) = made_string(seen, &member) else {
                        continue;
                    };
                    stage.learn(&string);
                    expected = expected.replacen(&format!("${name}"), &string, 1);
                    made.bind(name, string);
                }
            }
            check(stage, *who, &seen, &Seen::Text(expected))?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_are_found_with_their_members() {
        let found = placeholders(r#"{"type":"opened","key":"$K","token":"$_","other":"no$X"}"#);
        assert_eq!(found, [("key".to_owned(), 'K'), ("token".to_owned(), '_')]);
    }

    #[test]
    fn made_strings_have_32_digits() {
        let digits = "0123456789abcdef0123456789abcdef";
        let message = |key: &str| format!(r#"{{ "key" : "{key}" }}"#);
        assert_eq!(made_string(&message(digits), "key").as_deref(), Some(digits));
        for other in ["", &digits[1..], &digits.to_uppercase(), &digits.replace('f', "g")] {
            assert_eq!(made_string(&message(other), "key"), None, "{other}");
        }
        assert_eq!(made_string(&message(digits), "token"), None);
    }
}
