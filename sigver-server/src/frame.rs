//! Owns the making of frames that the server sends (RFC 6455 section 5.2: unmasked, unfragmented). Never sends one.

use std::fmt::Write;

use sigver_core::CloseReason;
use tungstenite::protocol::frame::{
    FrameHeader,
    coding::{Control, Data, OpCode},
};

/// Replaces what is in `frame` with a text frame.
pub(crate) fn text(text: &str, frame: &mut Vec<u8>) {
    make(OpCode::Data(Data::Text), text.as_bytes(), frame);
}

/// Replaces what is in `frame` with a ping.
pub(crate) fn ping(frame: &mut Vec<u8>) {
    make(OpCode::Control(Control::Ping), &[], frame);
}

/// Replaces what is in `frame` with the pong that answers a ping with this payload.
pub(crate) fn pong(payload: &[u8], frame: &mut Vec<u8>) {
    make(OpCode::Control(Control::Pong), payload, frame);
}

/// Replaces what is in `frame` with a close frame that gives the reason.
pub(crate) fn close(reason: CloseReason, frame: &mut Vec<u8>) {
    let mut text = String::new();
    // Writing to a `String` does not fail.
    let _ = write!(text, "{reason}");
    let payload = [&reason.code().to_be_bytes(), text.as_bytes()].concat();
    make(OpCode::Control(Control::Close), &payload, frame);
}

/// Replaces what is in `frame` with the close frame that answers a client's: the same code, or none (RFC 6455 section 5.5.1).
pub(crate) fn close_echo(code: Option<u16>, frame: &mut Vec<u8>) {
    let code = code.map(u16::to_be_bytes);
    make(
        OpCode::Control(Control::Close),
        code.as_ref().map_or(&[], |code| code),
        frame,
    );
}

fn make(opcode: OpCode, payload: &[u8], frame: &mut Vec<u8>) {
    frame.clear();
    let header = FrameHeader {
        opcode,
        ..FrameHeader::default()
    };
    // Writing to a `Vec` does not fail.
    let _ = header.format(payload.len() as u64, frame);
    frame.extend_from_slice(payload);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_written_in_their_shortest_form() {
        let mut frame = Vec::new();
        for (length, head) in [
            (0, &[0x81, 0][..]),
            (125, &[0x81, 125]),
            (126, &[0x81, 126, 0, 126]),
            (65_535, &[0x81, 126, 0xff, 0xff]),
            (65_536, &[0x81, 127, 0, 0, 0, 0, 0, 1, 0, 0]),
        ] {
            text(&"x".repeat(length), &mut frame);
            assert_eq!(&frame[..head.len()], head);
            assert_eq!(frame.len(), head.len() + length);
        }
    }

    #[test]
    fn every_close_frame_is_a_legal_control_frame() {
        let mut frame = Vec::new();
        for reason in CloseReason::ALL {
            close(*reason, &mut frame);
            assert_eq!(frame[0], 0x88);
            assert!(frame[1] <= 125 && frame.len() == 2 + frame[1] as usize, "{reason:?}");
            assert_eq!(frame[2..4], reason.code().to_be_bytes());
        }
        close_echo(None, &mut frame);
        assert_eq!(frame, [0x88, 0]);
        close_echo(Some(1000), &mut frame);
        assert_eq!(frame, [0x88, 2, 0x03, 0xe8]);
    }
}
