//! Reads frames from a socket with tungstenite, within a quota of bytes for each message.

use std::{
    io::{self, Read, Write},
    mem,
};

use sigver_core::{CloseReason, Limits};
use tungstenite::{
    Bytes, Error, Message, Utf8Bytes,
    error::ProtocolError,
    protocol::{CloseFrame, Role, WebSocketConfig, WebSocketContext, frame::coding::CloseCode},
};

use crate::{sys::stream::Stream, tuning::READ_BUFFER};

/// A frame or message that continues the connection.
pub(crate) enum Received {
    /// A text message, and the bytes that it took on the wire.
    Text(Utf8Bytes, usize),
    Ping(Bytes),
    Pong,
}

/// Why reading ended.
pub(crate) enum End {
    /// The client sent a close frame with this code.
    CloseFrame(Option<u16>),
    /// The client violated the protocol.
    Violation(CloseReason),
    /// The server closed the connection.
    Closed,
    /// The socket ended without a close frame.
    Lost,
}

/// The reading half of a WebSocket connection.
pub(crate) struct Reader<'a> {
    /// On the heap: a connection keeps every page of its stack that it has touched.
    socket: Box<WebSocketContext>,
    stream: QuotaStream<'a>,
}

impl<'a> Reader<'a> {
    /// Reads from `stream`, after the bytes in `rest`.
    #[inline(never)]
    pub(crate) fn new(stream: &'a Stream, rest: Vec<u8>, limits: &Limits) -> Self {
        let message_bytes = limits.message_bytes as usize;
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER)
            .write_buffer_size(0)
            .max_message_size(Some(message_bytes))
            // Pings may be longer than messages: up to 125 bytes.
            .max_frame_size(Some(message_bytes.max(125)));
        Self {
            socket: Box::new(WebSocketContext::from_partially_read(rest, Role::Server, Some(config))),
            stream: QuotaStream::new(stream, limits),
        }
    }

    /// Blocks until the next message, ping or pong.
    pub(crate) fn read(&mut self) -> Result<Received, End> {
        let message = match self.socket.read(&mut self.stream) {
            Ok(message) => message,
            Err(Error::Io(_)) if self.stream.is_over_quota() => return Err(End::Violation(CloseReason::TooBig)),
            Err(error) => return Err(end_of(&error)),
        };
        self.stream.record(&message);
        match message {
            // Fragments of a message may come between control frames: they count with the message.
            Message::Text(text) => Ok(Received::Text(text, self.stream.take_count())),
            Message::Binary(_) => Err(End::Violation(CloseReason::Binary)),
            Message::Ping(payload) => Ok(Received::Ping(payload)),
            Message::Pong(_) => Ok(Received::Pong),
            Message::Close(Some(frame)) if self.is_violation(&frame) => Err(End::Violation(CloseReason::BrokenFraming)),
            Message::Close(frame) => Err(End::CloseFrame(frame.map(|frame| frame.code.into()))),
            Message::Frame(_) => Err(End::Violation(CloseReason::BrokenFraming)),
        }
    }

    /// Whether tungstenite returned this close frame in place of one with a reserved code (RFC 6455 section 7.4). A client may send the same
    /// code and text itself, but only tungstenite's text is static.
    fn is_violation(&mut self, frame: &CloseFrame) -> bool {
        if frame.code != CloseCode::Protocol || frame.reason != "Protocol violation" {
            return false;
        }
        // The read buffer shares a client's text until it is dropped. Nothing is read after a close frame.
        let config = WebSocketConfig::default().read_buffer_size(READ_BUFFER);
        *self.socket = WebSocketContext::new(Role::Server, Some(config));
        let text: &Bytes = frame.reason.as_ref();
        !text.is_unique()
    }
}

/// The socket as tungstenite sees it. Reads count against a quota. Writes are discarded: tungstenite would send pongs and close frames
/// itself, but the relay sends them, in order with all other frames.
struct QuotaStream<'a> {
    stream: &'a Stream,
    /// Bytes that may still arrive before a message is complete.
    quota: u64,
    full_quota: u64,
    /// Bytes that arrived since the last call of [`take_count`](Self::take_count).
    count: usize,
}

/// A message may take this many times its largest size on the wire. A message in fragments of one byte takes seven times its size. One in
/// empty fragments would never end, and would keep a core busy within all other limits.
const WIRE_FACTOR: u64 = 8;

/// The bytes of a control frame in addition to its payload: header and mask (RFC 6455 section 5.2).
const CONTROL_HEADER: u64 = 6;

impl<'a> QuotaStream<'a> {
    fn new(stream: &'a Stream, limits: &Limits) -> Self {
        let full_quota = WIRE_FACTOR * u64::from(limits.message_bytes.max(READ_BUFFER as u32));
        Self {
            stream,
            quota: full_quota,
            full_quota,
            count: 0,
        }
    }

    fn take_count(&mut self) -> usize {
        mem::take(&mut self.count)
    }

    /// Restores the quota after a message. A control frame may stand between the fragments of a message that never ends, so it restores
    /// only its own bytes. The endpoint counts those, but not the bytes of the fragments before it.
    fn record(&mut self, message: &Message) {
        match message {
            Message::Ping(payload) | Message::Pong(payload) => {
                let bytes = CONTROL_HEADER + payload.len() as u64;
                self.quota = self.full_quota.min(self.quota + bytes);
                self.count = self.count.saturating_sub(bytes as usize);
            }
            Message::Text(_) | Message::Binary(_) | Message::Close(_) | Message::Frame(_) => {
                self.quota = self.full_quota;
            }
        }
    }

    fn is_over_quota(&self) -> bool {
        self.quota == 0
    }
}

impl Read for QuotaStream<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.is_over_quota() {
            return Err(io::ErrorKind::InvalidData.into());
        }
        loop {
            match self.stream.read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
                Ok(read) => {
                    self.quota = self.quota.saturating_sub(read as u64);
                    self.count += read;
                    return Ok(read);
                }
            }
        }
    }
}

impl Write for QuotaStream<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn end_of(error: &Error) -> End {
    match error {
        Error::Capacity(_) => End::Violation(CloseReason::TooBig),
        Error::Utf8(_) => End::Violation(CloseReason::InvalidUtf8),
        Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => End::Lost,
        Error::Protocol(_) => End::Violation(CloseReason::BrokenFraming),
        Error::ConnectionClosed | Error::AlreadyClosed | Error::Io(_) | Error::Tls(_) => End::Lost,
        // Errors of handshakes and of writing: tungstenite does neither here.
        Error::AttackAttempt | Error::WriteBufferFull(_) | Error::Url(_) | Error::Http(_) | Error::HttpFormat(_) => {
            End::Violation(CloseReason::Internal)
        }
    }
}
