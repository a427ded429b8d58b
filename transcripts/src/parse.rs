//! Owns the text format. Never plays anything.

use std::fmt;

/// One scenario.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transcript {
    /// The file's name without its ending.
    pub name: String,
    /// The first lines that start with `#`, as one.
    pub title: String,
    /// The section of PROTOCOL.md that it shows.
    pub section: String,
    /// Limits that are other than the default.
    pub limits: Vec<(Limit, u32)>,
    /// What happens.
    pub steps: Vec<Step>,
}

/// A limit that a transcript sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// `depth`
    Depth,
    /// `joiners-per-key`
    JoinersPerKey,
    /// `key-bytes`
    KeyBytes,
    /// `message-bytes`
    MessageBytes,
}

/// One line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Its number, from 1.
    pub line: usize,
    /// What it says.
    pub kind: StepKind,
}

/// What a line says. The `char` is the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StepKind {
    /// A client connects, offering this subprotocol or none.
    Connects(char, Option<String>),
    /// A client sends something.
    Sends(char, Frame),
    /// A client receives this text.
    Receives(char, String),
    /// A client sends a text frame in which `*` stands for the key that the server made.
    SendsMade(char, String),
    /// A client receives this text, with a key that the server made in place of `*`.
    ReceivesMade(char, String),
    /// A client is closed.
    Closed(char, u16, String),
    /// A client sends a close frame.
    Closes(char, Option<u16>),
    /// A client's connection ends.
    Vanishes(char),
    /// The role deadline passes.
    WaitRoleDeadline,
}

/// What a client sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// A text frame; not always UTF-8.
    Text(Vec<u8>),
    /// A text message in several frames, with pings between.
    Pieces(Vec<String>),
    /// A binary frame.
    Binary(Vec<u8>),
    /// Bytes that are no frame of ours.
    Raw(Vec<u8>),
}

/// A line that is none of the format's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable {
    /// The line's number, from 1.
    pub line: usize,
    /// The line.
    pub text: String,
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {} is no step: {:?}", self.line, self.text)
    }
}

impl std::error::Error for Unreadable {}

impl Transcript {
    /// Reads a transcript.
    ///
    /// # Errors
    ///
    /// At the first line that means nothing.
    pub fn parse(name: &str, text: &str) -> Result<Self, Unreadable> {
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
            transcript.read(number, line).ok_or_else(|| Unreadable {
                line: number,
                text: line.into(),
            })?;
        }
        Ok(transcript)
    }

    fn read(&mut self, number: usize, line: &str) -> Option<()> {
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
    /// The limit of this name.
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "depth" => Some(Self::Depth),
            "joiners-per-key" => Some(Self::JoinersPerKey),
            "key-bytes" => Some(Self::KeyBytes),
            "message-bytes" => Some(Self::MessageBytes),
            _ => None,
        }
    }

    /// Its name, as [`parse`](Self::parse) reads it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Depth => "depth",
            Self::JoinersPerKey => "joiners-per-key",
            Self::KeyBytes => "key-bytes",
            Self::MessageBytes => "message-bytes",
        }
    }
}

impl StepKind {
    fn parse(line: &str) -> Option<Self> {
        if line == "wait role-deadline" {
            return Some(Self::WaitRoleDeadline);
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

    /// The subprotocol that its client offers, if this is what connects it.
    pub fn subprotocol(&self) -> Option<&str> {
        let Self::Connects(_, subprotocol) = self else {
            return None;
        };
        subprotocol.as_deref()
    }

    /// The client that the step is about, if it is about one.
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
            Self::WaitRoleDeadline => None,
        }
    }
}

/// Bytes from pairs of hexadecimal digits, with or without spaces between.
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
    fn every_form_of_line_is_read() {
        let text = "# A title\n# in two lines.\nsection Limits\nset depth 4\n\nA > {} \nA >hex 7b 7d\nA >repeat 3 [\n\
                    A >pieces a|b\nA >binary 00ff\nA >raw 8100\n# between\nA < {\"a\":1}\nA ! 1008 key is taken\n\
                    B closes 1000\nB closes\nB connects\nB vanishes\nwait role-deadline\nC speaks sigver.v1\n\
                    A >made a*\nA <made *b\n";
        let transcript = Transcript::parse("t", text).expect("readable");
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
                StepKind::WaitRoleDeadline,
                StepKind::Connects('C', Some("sigver.v1".into())),
                StepKind::SendsMade('A', "a*".into()),
                StepKind::ReceivesMade('A', "*b".into()),
            ]
        );
    }

    #[test]
    fn a_line_that_means_nothing_is_named() {
        for line in [
            "a > {}",
            "A >hex 7",
            "A ! key",
            "A gone",
            "set depth x",
            "set colour 3",
            "A > {}\nset depth 3",
            "A > {}\nsection Plain",
            "A >",
        ] {
            let unreadable = Transcript::parse("t", line).map(|_| ()).map_err(|error| error.text);
            let last = line.lines().last().unwrap_or_default();
            if line != "A >" {
                assert_eq!(unreadable, Err(last.into()));
            } else {
                assert_eq!(unreadable, Ok(()), "an empty text is a text");
            }
        }
    }
}
