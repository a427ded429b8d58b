//! WebSocket frames (RFC 6455 section 5): reads those of clients, writes those of the server.
//!
//! A frame is read in the buffer that all connections share: nothing is copied or kept. tungstenite's `WebSocketContext` would need fewer
//! lines here, but keeps for each connection a buffer of the size of its largest frame.

use std::{borrow::Cow, collections::VecDeque, io::Cursor};

use sigver_core::{CloseReason, Frame};
use tungstenite::protocol::frame::{
    FrameHeader,
    coding::{CloseCode, Control, Data, OpCode},
};

/// Assembles the messages of a client.
#[derive(Default)]
pub(crate) struct Reader {
    pieces: Option<Pieces>,
}

/// The fragments of a text that is not complete.
#[derive(Default)]
struct Pieces {
    bytes: Vec<u8>,
    /// The number of bytes that are complete characters.
    characters: usize,
    /// The size of the frames on the wire, headers included.
    wire: usize,
}

/// The largest size of a message on the wire, in multiples of the limit. A message in fragments of one byte takes seven; one in empty
/// fragments would never end and never reach any other limit.
const WIRE_FACTOR: usize = 8;

/// A frame from a client.
pub(crate) enum Received<'a> {
    Text(Cow<'a, str>),
    /// A fragment of a text, not the last one.
    Piece,
    Ping(&'a [u8]),
    Pong,
    Close(Option<u16>),
}

impl Reader {
    /// Reads the frame at the front of `bytes`, unmasks it in place and returns its length; `None` if it is not complete.
    ///
    /// # Errors
    ///
    /// The reason to close the client with, [`CloseReason::TooBig`] for texts of more than `limit` bytes. Nothing can be read after an error.
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

    /// Checks a frame by its header, so that an invalid one is rejected before its payload arrives.
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

    /// Adds a text or a fragment that [`check`](Self::check) has accepted. The message has taken `wire` bytes so far.
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
    /// Adds a fragment. Fails if it is not UTF-8, up to a character that the next one may complete.
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
    // The compiler turns blocks of a fixed length into vector instructions.
    let mut key = [0; 16];
    key.chunks_exact_mut(4).for_each(|part| part.copy_from_slice(&mask));
    let mut blocks = payload.chunks_exact_mut(key.len());
    for block in &mut blocks {
        block.iter_mut().zip(key).for_each(|(byte, key)| *byte ^= key);
    }
    let rest = blocks.into_remainder();
    rest.iter_mut().zip(key).for_each(|(byte, key)| *byte ^= key);
}

/// Returns the code of a close frame, if it has one.
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

/// Appends a frame's bytes: unmasked, in one piece.
pub(crate) fn write(frame: &Frame, out: &mut VecDeque<u8>) {
    match frame {
        Frame::Text(text) => append(OpCode::Data(Data::Text), text.as_bytes(), out),
        Frame::Ping => append(OpCode::Control(Control::Ping), &[], out),
        Frame::Pong(payload) => append(OpCode::Control(Control::Pong), payload, out),
        Frame::Close(reason) => {
            let payload = [&reason.code().to_be_bytes(), reason.to_string().as_bytes()].concat();
            append(OpCode::Control(Control::Close), &payload, out);
        }
        Frame::CloseReply(code) => {
            let payload = code.map(u16::to_be_bytes);
            let payload = payload.as_ref().map_or(&[][..], |code| code);
            append(OpCode::Control(Control::Close), payload, out);
        }
    }
}

fn append(opcode: OpCode, payload: &[u8], out: &mut VecDeque<u8>) {
    let header = FrameHeader {
        opcode,
        ..FrameHeader::default()
    };
    // Writing to memory does not fail.
    let _ = header.format(payload.len() as u64, out);
    out.extend(payload);
}
