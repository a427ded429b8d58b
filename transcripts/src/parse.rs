//! The parser of the transcript format.

use std::fmt;

/// One scenario.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transcript {
    /// The file name without its extension.
    pub name: String,
    /// The comment lines at the top, joined.
    pub title: String,
    /// The section of PROTOCOL.md that the scenario illustrates.
    pub section: String,
    /// Limits that differ from the default.
    pub limits: Vec<(Limit, u32)>,
    /// The steps, in order.
    pub steps: Vec<Step>,
}

/// A limit that a transcript sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// `depth`
    Depth,
    /// `joiners-per-key`
    JoinersPerKey,
    /// `key-attempts`: per minute and connection
    KeyAttempts,
    /// `key-bytes`
    KeyBytes,
    /// `message-bytes`
    MessageBytes,
}

/// One line of a transcript.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The line number, from 1.
    pub line: usize,
    /// The action or expectation of the line.
    pub kind: StepKind,
}

/// The action or expectation of a line. The `char` is the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StepKind {
    /// A client connects and offers this subprotocol, or none.
    Connects(char, Option<String>),
    /// A client sends a frame.
    Sends(char, Frame),
    /// A client receives this text.
    Receives(char, String),
    /// A client sends this text, with strings that the server made in place of `$K` and others.
    SendsMade(char, String),
    /// A client receives this text, with strings that the server made in place of `$K` and others.
    ReceivesMade(char, String),
    /// A client receives a close frame with this code and text.
    Closed(char, u16, String),
    /// A client sends a close frame with this code, or without a code.
    Closes(char, Option<u16>),
    /// A client disconnects without a close frame.
    Vanishes(char),
    /// Time passes.
    Wait(Wait),
}

/// How much time passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// The role deadline of the server.
    RoleDeadline,
    /// This many seconds.
    Seconds(u32),
}

/// A frame or other bytes from a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// A text frame, which may contain invalid UTF-8.
    Text(Vec<u8>),
    /// A text message in several fragments, with a ping after each.
    Pieces(Vec<String>),
    /// A binary frame.
    Binary(Vec<u8>),
    /// Bytes that are sent unchanged.
    Raw(Vec<u8>),
}

/// The error returned by [`Transcript::parse`] for an invalid line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseError {
    /// The line number, from 1.
    pub line: usize,
    /// The text of the line.
    pub text: String,
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: invalid step: {:?}", self.line, self.text)
    }
}

impl std::error::Error for ParseError {}

impl Transcript {
    /// Parses a transcript.
    ///
    /// # Errors
    ///
    /// If a line is invalid. The error names the first one.
    pub fn parse(name: &str, text: &str) -> Result<Self, ParseError> {
        let title: Vec<&str> = text
            .lines()
            .map_while(|line| line.strip_prefix('#'))
            .map(str::trim)
            .collect();
        let mut transcript = Self {
            name: name.into(),
            title: title.join(" "),
            section: String::new(),
            limits: Vec::new(),
            steps: Vec::new(),
        };
        for (number, line) in (1..).zip(text.lines()) {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            transcript.parse_line(number, line).ok_or_else(|| ParseError {
                line: number,
                text: line.into(),
            })?;
        }
        Ok(transcript)
    }

    fn parse_line(&mut self, number: usize, line: &str) -> Option<()> {
        if self.steps.is_empty() {
            if let Some(section) = line.strip_prefix("section ") {
                self.section = section.into();
                return Some(());
            }
            if let Some(setting) = line.strip_prefix("set ") {
                let (limit, value) = setting.split_once(' ')?;
                self.limits.push((Limit::parse(limit)?, value.parse().ok()?));
                return Some(());
            }
        }
        self.steps.push(Step {
            line: number,
            kind: StepKind::parse(line)?,
        });
        Some(())
    }
}

impl Limit {
    /// Returns the limit with this name.
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "depth" => Some(Self::Depth),
            "joiners-per-key" => Some(Self::JoinersPerKey),
            "key-attempts" => Some(Self::KeyAttempts),
            "key-bytes" => Some(Self::KeyBytes),
            "message-bytes" => Some(Self::MessageBytes),
            _ => None,
        }
    }

    /// Returns the name, as accepted by [`parse`](Self::parse).
    pub fn name(self) -> &'static str {
        match self {
            Self::Depth => "depth",
            Self::JoinersPerKey => "joiners-per-key",
            Self::KeyAttempts => "key-attempts",
            Self::KeyBytes => "key-bytes",
            Self::MessageBytes => "message-bytes",
        }
    }
}

impl StepKind {
    fn parse(line: &str) -> Option<Self> {
        if line == "wait role-deadline" {
            return Some(Self::Wait(Wait::RoleDeadline));
        }
        if let Some(seconds) = line.strip_prefix("wait ") {
            return Some(Self::Wait(Wait::Seconds(seconds.strip_suffix(" s")?.parse().ok()?)));
        }
        let mut chars = line.chars();
        let who = chars.next().filter(char::is_ascii_uppercase)?;
        let (verb, rest) = chars
            .as_str()
            .strip_prefix(' ')?
            .split_once(' ')
            .unwrap_or((&line[2..], ""));
        Some(match verb {
            ">" => Self::Sends(who, Frame::Text(rest.into())),
            ">hex" => Self::Sends(who, Frame::Text(hex(rest)?)),
            ">repeat" => {
                let (times, text) = rest.split_once(' ')?;
                Self::Sends(who, Frame::Text(text.repeat(times.parse().ok()?).into_bytes()))
            }
            ">pieces" => Self::Sends(who, Frame::Pieces(rest.split('|').map(str::to_owned).collect())),
            ">binary" => Self::Sends(who, Frame::Binary(hex(rest)?)),
            ">raw" => Self::Sends(who, Frame::Raw(hex(rest)?)),
            ">made" => Self::SendsMade(who, rest.into()),
            "<made" => Self::ReceivesMade(who, rest.into()),
            "<" => Self::Receives(who, rest.into()),
            "<hex" => Self::Receives(who, String::from_utf8(hex(rest)?).ok()?),
            "!" => {
                let (code, text) = rest.split_once(' ')?;
                Self::Closed(who, code.parse().ok()?, text.into())
            }
            "closes" if rest.is_empty() => Self::Closes(who, None),
            "closes" => Self::Closes(who, Some(rest.parse().ok()?)),
            "connects" if rest.is_empty() => Self::Connects(who, None),
            "speaks" if !rest.is_empty() => Self::Connects(who, Some(rest.into())),
            "vanishes" if rest.is_empty() => Self::Vanishes(who),
            _ => return None,
        })
    }

    /// Returns the subprotocol that the client offers, if the step connects it with one.
    pub fn subprotocol(&self) -> Option<&str> {
        let Self::Connects(_, subprotocol) = self else {
            return None;
        };
        subprotocol.as_deref()
    }

    /// Returns the client of the step, if it has one.
    pub fn who(&self) -> Option<char> {
        match self {
            Self::Connects(who, _)
            | Self::Sends(who, _)
            | Self::SendsMade(who, _)
            | Self::Receives(who, _)
            | Self::ReceivesMade(who, _)
            | Self::Closed(who, ..)
            | Self::Closes(who, _)
            | Self::Vanishes(who) => Some(*who),
            Self::Wait(_) => None,
        }
    }
}

/// Decodes pairs of hexadecimal digits. Spaces are ignored.
fn hex(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> = text
        .chars()
        .filter(|c| *c != ' ')
        .map(|c| c.to_digit(16).map(|digit| digit as u8))
        .collect::<Option<_>>()?;
    let pairs = digits.chunks_exact(2);
    pairs
        .remainder()
        .is_empty()
        .then(|| pairs.map(|pair| pair[0] << 4 | pair[1]).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transcript_with_every_kind_of_line_parses() {
        let text = "# A title\n# in two lines.\nsection Limits\nset depth 4\n\nA > {} \nA >hex 7b 7d\nA >repeat 3 [\n\
                    A >pieces a|b\nA >binary 00ff\nA >raw 8100\n# between\nA < {\"a\":1}\nA ! 1008 key is taken\n\
                    B closes 1000\nB closes\nB connects\nB vanishes\nwait role-deadline\nwait 2 s\nC speaks sigver.v1\n\
                    A >made a*\nA <made *b\n";
        let transcript = Transcript::parse("t", text).expect("valid");
        assert_eq!(transcript.title, "A title in two lines.");
        assert_eq!(transcript.section, "Limits");
        assert_eq!(transcript.limits, [(Limit::Depth, 4)]);
        let kinds: Vec<_> = transcript.steps.into_iter().map(|step| step.kind).collect();
        assert_eq!(
            kinds,
            [
                StepKind::Sends('A', Frame::Text(b"{} ".into())),
                StepKind::Sends('A', Frame::Text(b"{}".into())),
                StepKind::Sends('A', Frame::Text(b"[[[".into())),
                StepKind::Sends('A', Frame::Pieces(vec!["a".into(), "b".into()])),
                StepKind::Sends('A', Frame::Binary(vec![0, 0xff])),
                StepKind::Sends('A', Frame::Raw(vec![0x81, 0])),
                StepKind::Receives('A', r#"{"a":1}"#.into()),
                StepKind::Closed('A', 1008, "key is taken".into()),
                StepKind::Closes('B', Some(1000)),
                StepKind::Closes('B', None),
                StepKind::Connects('B', None),
                StepKind::Vanishes('B'),
                StepKind::Wait(Wait::RoleDeadline),
                StepKind::Wait(Wait::Seconds(2)),
                StepKind::Connects('C', Some("sigver.v1".into())),
                StepKind::SendsMade('A', "a*".into()),
                StepKind::ReceivesMade('A', "*b".into()),
            ]
        );
    }

    #[test]
    fn invalid_line_is_reported() {
        for line in [
            "a > {}",
            "A >hex 7",
            "A ! key",
            "A gone",
            "set depth x",
            "set colour 3",
            "A > {}\nset depth 3",
            "A > {}\nsection Plain",
            "wait 2",
            "A >",
        ] {
            let error = Transcript::parse("t", line).map(|_| ()).map_err(|error| error.text);
            let last = line.lines().last().unwrap_or_default();
            if line != "A >" {
                assert_eq!(error, Err(last.into()));
            } else {
                assert_eq!(error, Ok(()), "an empty text is valid");
            }
        }
    }
}
