//! A naive parser of WebSocket frames (RFC 6455 section 5), for transcripts that send raw bytes.

use std::{mem, str};

use sigver_core::{CloseReason, Input};

/// An [`Input`] that owns its data.
pub(super) enum Event {
    Text(String),
    Binary,
    Ping(Vec<u8>),
    Pong,
    Close(Option<u16>),
    Violation(CloseReason),
}

impl Event {
    pub(super) fn as_input(&self) -> Input<'_> {
        match self {
            Self::Text(text) => Input::Text(text),
            Self::Binary => Input::Binary,
            Self::Ping(payload) => Input::Ping(payload),
            Self::Pong => Input::Pong,
            Self::Close(code) => Input::Close(*code),
            Self::Violation(reason) => Input::Violation(*reason),
        }
    }

    pub(super) fn text(bytes: &[u8]) -> Self {
        match str::from_utf8(bytes) {
            Ok(text) => Self::Text(text.to_owned()),
            Err(_) => Self::Violation(CloseReason::InvalidUtf8),
        }
    }
}

/// A parser for the bytes of one connection.
#[derive(Default)]
pub(super) struct FrameReader {
    bytes: Vec<u8>,
    /// Whether the message is text, and the fragments received so far.
    message: Option<(bool, Vec<u8>)>,
}

const BROKEN: Event = Event::Violation(CloseReason::BrokenFraming);

impl FrameReader {
    /// Returns an event for each complete message or control frame after `bytes` were added.
    pub(super) fn read(&mut self, bytes: &[u8]) -> Vec<Event> {
        self.bytes.extend(bytes);
        let mut events = Vec::new();
        while let Some(event) = self.next() {
            events.extend(event);
        }
        events
    }

    /// Returns `None` if no frame is complete, and `Some(None)` for a fragment.
    fn next(&mut self) -> Option<Option<Event>> {
        let [first, second, ..] = self.bytes[..] else {
            return None;
        };
        let (is_final, opcode) = (first & 0x80 != 0, first & 0x0f);
        let is_control = opcode & 0x08 != 0;
        let length = usize::from(second & 0x7f);
        let is_broken = first & 0x70 != 0
            || second & 0x80 == 0
            || !matches!(opcode, 0x0..=0x2 | 0x8..=0xa)
            || is_control && (!is_final || length > 125)
            || (opcode == 0) != self.message.is_some() && !is_control;
        if is_broken {
            self.bytes.clear();
            return Some(Some(BROKEN));
        }
        let payload = self.payload(length)?;
        Some(match opcode {
            0x8 => Some(close(&payload)),
            0x9 => Some(Event::Ping(payload)),
            0xa => Some(Event::Pong),
            _ => self.fragment(opcode, is_final, payload),
        })
    }

    /// Removes the first frame and returns its unmasked payload; `None` if the frame is not complete.
    fn payload(&mut self, length: usize) -> Option<Vec<u8>> {
        let (length, start) = match length {
            126 => {
                let length: [u8; 2] = self.bytes.get(2..4)?.try_into().ok()?;
                (u16::from_be_bytes(length).into(), 4)
            }
            127 => panic!("raw frames of transcripts are shorter than 64 KiB"),
            _ => (length, 2),
        };
        let mask: [u8; 4] = self.bytes.get(start..start + 4)?.try_into().ok()?;
        let (start, end) = (start + 4, start + 4 + length);
        let payload = self.bytes.get(start..end)?;
        let payload = payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask);
        let payload = payload.collect();
        self.bytes.drain(..end);
        Some(payload)
    }

    fn fragment(&mut self, opcode: u8, is_final: bool, payload: Vec<u8>) -> Option<Event> {
        let (is_text, message) = self.message.get_or_insert((opcode == 1, Vec::new()));
        message.extend(payload);
        // A fragment may end within a character. Any other error is a violation.
        if *is_text && str::from_utf8(message).is_err_and(|error| error.error_len().is_some()) {
            return Some(Event::Violation(CloseReason::InvalidUtf8));
        }
        if !is_final {
            return None;
        }
        let (is_text, message) = (*is_text, mem::take(message));
        self.message = None;
        Some(if is_text { Event::text(&message) } else { Event::Binary })
    }
}

fn close(payload: &[u8]) -> Event {
    match payload {
        [] => Event::Close(None),
        [high, low, ..] => match u16::from_be_bytes([*high, *low]) {
            code @ (1000..=1003 | 1007..=1014 | 3000..=4999) => Event::Close(Some(code)),
            _ => BROKEN,
        },
        [_] => BROKEN,
    }
}
