//! Encodes the frames that the server sends: unmasked and unfragmented (RFC 6455 section 5.2).

use sigver_core::Frame;
use tungstenite::protocol::frame::{
    FrameHeader,
    coding::{Control, Data, OpCode},
};

/// Replaces the content of `bytes` with the encoded frame.
pub(crate) fn encode(frame: &Frame, bytes: &mut Vec<u8>) {
    let (text, code);
    let (opcode, payload): (OpCode, &[u8]) = match frame {
        Frame::Text(text) => (OpCode::Data(Data::Text), text.as_bytes()),
        Frame::Ping => (OpCode::Control(Control::Ping), &[]),
        Frame::Pong(payload) => (OpCode::Control(Control::Pong), payload),
        Frame::Close(reason) => {
            text = [&reason.code().to_be_bytes(), reason.to_string().as_bytes()].concat();
            (OpCode::Control(Control::Close), &text)
        }
        Frame::CloseReply(reply) => {
            code = reply.map(u16::to_be_bytes);
            (OpCode::Control(Control::Close), code.as_ref().map_or(&[], |code| code))
        }
    };
    make(opcode, payload, bytes);
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
    use sigver_core::CloseReason;

    use super::*;

    fn encoded(frame: &Frame) -> Vec<u8> {
        let mut bytes = Vec::new();
        encode(frame, &mut bytes);
        assert_eq!(bytes.len(), frame.wire_len(), "the core accounts for what is sent");
        bytes
    }

    #[test]
    fn lengths_are_written_in_their_shortest_form() {
        for (length, head) in [
            (0, &[0x81, 0][..]),
            (125, &[0x81, 125]),
            (126, &[0x81, 126, 0, 126]),
            (65_535, &[0x81, 126, 0xff, 0xff]),
            (65_536, &[0x81, 127, 0, 0, 0, 0, 0, 1, 0, 0]),
        ] {
            let frame = encoded(&Frame::Text("x".repeat(length)));
            assert_eq!(&frame[..head.len()], head);
            assert_eq!(frame.len(), head.len() + length);
        }
    }

    #[test]
    fn every_close_frame_is_a_legal_control_frame() {
        for reason in CloseReason::ALL {
            let frame = encoded(&Frame::Close(*reason));
            assert_eq!(frame[0], 0x88);
            assert!(frame[1] <= 125 && frame.len() == 2 + frame[1] as usize, "{reason:?}");
            assert_eq!(frame[2..4], reason.code().to_be_bytes());
        }
        assert_eq!(encoded(&Frame::CloseReply(None)), [0x88, 0]);
        assert_eq!(encoded(&Frame::CloseReply(Some(1000))), [0x88, 2, 0x03, 0xe8]);
        assert_eq!(encoded(&Frame::Ping), [0x89, 0]);
        assert_eq!(encoded(&Frame::Pong(b"x".as_slice().into())), [0x8a, 1, b'x']);
    }
}
