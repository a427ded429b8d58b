//! WebSocket frames (RFC 6455 section 5): reading a client's, making the server's. Never touches a socket.
//!
//! A frame is read where it lies, in the buffer that all connections share: nothing is copied, and nothing is kept of
//! it. tungstenite's own `WebSocketContext` would do the reading in fewer lines, and keep for each connection, for
//! life, a buffer as large as the largest frame that came.

use std::{borrow::Cow, collections::VecDeque, io::Cursor};

use sigver_core::CloseReason;
use tungstenite::protocol::frame::{
    FrameHeader,
    coding::{CloseCode, Control, Data, OpCode},
};

/// Puts a client's messages together.
#[derive(Default)]
pub(crate) struct Reader {
    pieces: Option<Pieces>,
}

/// The frames so far of a text that comes in several.
#[derive(Default)]
struct Pieces {
    bytes: Vec<u8>,
    /// How many of them are whole characters. The others begin one whose end has not come.
    characters: usize,
    /// What the frames have taken on the wire.
    wire: usize,
}

/// A message may take so many times the limit on the wire. One cut into single bytes takes seven; one in empty pieces
/// would never end, and never be over any other limit.
const WIRE_FACTOR: usize = 8;

/// What a client has sent.
pub(crate) enum Received<'a> {
    Text(Cow<'a, str>),
    /// A piece of a text, and not the last.
    Piece,
    Ping(&'a [u8]),
    Pong,
    Close(Option<u16>),
}

impl Reader {
    /// Reads the frame at the front of `bytes`, which it unmasks in place, and says how long it was; `None` while it is
    /// not whole. Texts of more than `limit` bytes are refused. After an error there is nothing more to be read.
    pub(crate) fn next<'a>(
        &mut self,
        bytes: &'a mut [u8],
        limit: u32,
    ) -> Result<Option<(usize, Received<'a>)>, CloseReason> {
        let mut cursor = Cursor::new(&*bytes);
        let header = FrameHeader::parse(&mut cursor).map_err(|_| CloseReason::BrokenFraming)?;
        let Some((header, length)) = header else {
            return Ok(None);
        };
        let start = cursor.position() as usize;
        let (length, mask) = self.check(&header, length, limit)?;
        let end = start + length;
        let Some(payload) = bytes.get_mut(start..end) else {
            return Ok(None);
        };
        unmask(payload, mask);
        let received = match header.opcode {
            OpCode::Control(Control::Ping) => Received::Ping(payload),
            OpCode::Control(Control::Pong) => Received::Pong,
            OpCode::Control(_) => Received::Close(close_code(payload)?),
            OpCode::Data(_) => {
                let wire = self.pieces.as_ref().map_or(0, |pieces| pieces.wire) + end;
                if wire > WIRE_FACTOR * limit as usize {
                    return Err(CloseReason::TooBig);
                }
                self.data(&header, payload, wire)?
            }
        };
        Ok(Some((end, received)))
    }

    /// Refuses a frame by its header alone, so that what is not allowed is not waited for.
    fn check(&self, header: &FrameHeader, length: u64, limit: u32) -> Result<(usize, [u8; 4]), CloseReason> {
        let reserved = header.rsv1 || header.rsv2 || header.rsv3;
        let mask = header.mask.filter(|_| !reserved).ok_or(CloseReason::BrokenFraming)?;
        let most = match (header.opcode, &self.pieces) {
            (OpCode::Control(Control::Close | Control::Ping | Control::Pong), _) => {
                if !header.is_final || length > 125 {
                    return Err(CloseReason::BrokenFraming);
                }
                125
            }
            (OpCode::Data(Data::Text), None) => limit as usize,
            (OpCode::Data(Data::Binary), None) => return Err(CloseReason::Binary),
            (OpCode::Data(Data::Continue), Some(pieces)) => (limit as usize).saturating_sub(pieces.bytes.len()),
            (OpCode::Data(_) | OpCode::Control(Control::Reserved(_)), _) => return Err(CloseReason::BrokenFraming),
        };
        match usize::try_from(length) {
            Ok(length) if length <= most => Ok((length, mask)),
            Ok(_) | Err(_) => Err(CloseReason::TooBig),
        }
    }

    /// Takes a text, or a piece of one, which has taken `wire` bytes so far. Which of them, and that it may come now, `check`
    /// has seen.
    fn data<'a>(&mut self, header: &FrameHeader, payload: &'a [u8], wire: usize) -> Result<Received<'a>, CloseReason> {
        let text = match (self.pieces.take(), header.is_final) {
            (None, true) => std::str::from_utf8(payload).ok().map(Cow::Borrowed),
            (pieces, _) => {
                let mut pieces = pieces.unwrap_or_default();
                pieces.push(payload)?;
                pieces.wire = wire;
                if !header.is_final {
                    self.pieces = Some(pieces);
                    return Ok(Received::Piece);
                }
                String::from_utf8(pieces.bytes).ok().map(Cow::Owned)
            }
        };
        text.map(Received::Text).ok_or(CloseReason::InvalidUtf8)
    }
}

impl Pieces {
    /// Takes the next piece, unless no text can begin with it.
    fn push(&mut self, payload: &[u8]) -> Result<(), CloseReason> {
        self.bytes.extend_from_slice(payload);
        match std::str::from_utf8(&self.bytes[self.characters..]) {
            Ok(text) => self.characters += text.len(),
            Err(error) if error.error_len().is_none() => self.characters += error.valid_up_to(),
            Err(_) => return Err(CloseReason::InvalidUtf8),
        }
        Ok(())
    }
}

fn unmask(payload: &mut [u8], mask: [u8; 4]) {
    // In blocks of a fixed length, each of which the compiler makes one instruction.
    let mut key = [0; 16];
    key.chunks_exact_mut(4).for_each(|part| part.copy_from_slice(&mask));
    let mut blocks = payload.chunks_exact_mut(key.len());
    for block in &mut blocks {
        block.iter_mut().zip(key).for_each(|(byte, key)| *byte ^= key);
    }
    let rest = blocks.into_remainder();
    rest.iter_mut().zip(key).for_each(|(byte, key)| *byte ^= key);
}

/// The code in a close frame, which may be without one.
fn close_code(payload: &[u8]) -> Result<Option<u16>, CloseReason> {
    match payload {
        [] => Ok(None),
        [high, low, text @ ..] => {
            let code = u16::from_be_bytes([*high, *low]);
            if !CloseCode::from(code).is_allowed() {
                return Err(CloseReason::BrokenFraming);
            }
            match std::str::from_utf8(text) {
                Ok(_) => Ok(Some(code)),
                Err(_) => Err(CloseReason::InvalidUtf8),
            }
        }
        [_] => Err(CloseReason::BrokenFraming),
    }
}

/// What the server sends.
#[derive(Clone, Copy)]
pub(crate) enum Frame<'a> {
    Text(&'a str),
    Ping,
    /// The answer to a ping, with its payload.
    Pong(&'a [u8]),
    Close(CloseReason),
    /// The answer to a client's close frame: the same code, or none (RFC 6455 section 5.5.1).
    CloseEcho(Option<u16>),
}

impl Frame<'_> {
    pub(crate) fn to_bytes(self) -> Vec<u8> {
        let mut bytes = VecDeque::new();
        self.write(&mut bytes);
        bytes.into()
    }

    /// Appends the frame's bytes: unmasked, in one piece.
    pub(crate) fn write(self, out: &mut VecDeque<u8>) {
        match self {
            Self::Text(text) => write(OpCode::Data(Data::Text), text.as_bytes(), out),
            Self::Ping => write(OpCode::Control(Control::Ping), &[], out),
            Self::Pong(payload) => write(OpCode::Control(Control::Pong), payload, out),
            Self::Close(reason) => {
                let payload = [&reason.code().to_be_bytes(), reason.to_string().as_bytes()].concat();
                write(OpCode::Control(Control::Close), &payload, out);
            }
            Self::CloseEcho(code) => {
                let payload = code.map(u16::to_be_bytes);
                let payload = payload.as_ref().map_or(&[][..], |code| code);
                write(OpCode::Control(Control::Close), payload, out);
            }
        }
    }
}

fn write(opcode: OpCode, payload: &[u8], out: &mut VecDeque<u8>) {
    let header = FrameHeader {
        opcode,
        ..FrameHeader::default()
    };
    // Writing to memory does not fail.
    let _ = header.format(payload.len() as u64, out);
    out.extend(payload);
}
