//! WebSocket frames (RFC 6455, section 5.2): parses headers and writes whole frames.
//!
//! Parsing checks only what is needed to find the end of a frame.

/// The type of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opcode {
    /// A binary message. The programs here never send one.
    Binary,
    /// A close frame: a code and a reason.
    Close,
    /// A further fragment of a message.
    Continuation,
    /// A ping. The peer answers with a pong that has the same body.
    Ping,
    /// A pong.
    Pong,
    /// A text message or its first fragment.
    Text,
}

impl Opcode {
    fn from_bits(bits: u8) -> Option<Self> {
        match bits {
            0x0 => Some(Self::Continuation),
            0x1 => Some(Self::Text),
            0x2 => Some(Self::Binary),
            0x8 => Some(Self::Close),
            0x9 => Some(Self::Ping),
            0xa => Some(Self::Pong),
            _ => None,
        }
    }

    fn bits(self) -> u8 {
        match self {
            Self::Continuation => 0x0,
            Self::Text => 0x1,
            Self::Binary => 0x2,
            Self::Close => 0x8,
            Self::Ping => 0x9,
            Self::Pong => 0xa,
        }
    }
}

/// A parsed frame header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Type of the frame.
    pub opcode: Opcode,
    /// Whether this is the last frame of its message.
    pub fin: bool,
    /// The masking key. Client frames have one, server frames do not.
    pub mask: Option<[u8; 4]>,
    /// Length of the header, in bytes.
    pub header_len: usize,
    /// Length of the body, in bytes.
    pub body_len: usize,
}

impl Header {
    /// Returns the length of the whole frame, in bytes.
    #[must_use]
    pub fn frame_len(&self) -> usize {
        self.header_len + self.body_len
    }
}

/// The error for bytes that are not a valid frame header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

/// Parses the header at the start of `bytes`. Returns `None` if it is incomplete.
///
/// # Errors
/// [`Malformed`] if the opcode is unknown, a reserved bit is set, or the length is 4 GiB or more.
pub fn parse_header(bytes: &[u8]) -> Result<Option<Header>, Malformed> {
    let &[first, second, ref rest @ ..] = bytes else {
        return Ok(None);
    };
    if first & 0x70 != 0 {
        return Err(Malformed);
    }
    let opcode = Opcode::from_bits(first & 0x0f).ok_or(Malformed)?;
    let (body_len, length_bytes) = match second & 0x7f {
        126 => match rest.first_chunk() {
            Some(&length) => (usize::from(u16::from_be_bytes(length)), 2),
            None => return Ok(None),
        },
        127 => match rest.first_chunk() {
            Some(&length) => {
                let length = u32::try_from(u64::from_be_bytes(length)).map_err(|_| Malformed)?;
                (usize::try_from(length).map_err(|_| Malformed)?, 8)
            }
            None => return Ok(None),
        },
        short => (usize::from(short), 0),
    };
    let (mask, mask_bytes) = if second & 0x80 == 0 {
        (None, 0)
    } else {
        match rest.get(length_bytes..).and_then(<[u8]>::first_chunk) {
            Some(&mask) => (Some(mask), 4),
            None => return Ok(None),
        }
    };
    Ok(Some(Header {
        opcode,
        fin: first & 0x80 != 0,
        mask,
        header_len: 2 + length_bytes + mask_bytes,
        body_len,
    }))
}

/// Masks or unmasks `body`. Both are the same operation.
pub fn apply_mask(body: &mut [u8], mask: [u8; 4]) {
    let [a, b, c, d] = mask;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let mut words = body.chunks_exact_mut(8);
    for word in &mut words {
        if let Some(bytes) = word.first_chunk_mut::<8>() {
            *bytes = (u64::from_ne_bytes(*bytes) ^ wide).to_ne_bytes();
        }
    }
    for (byte, key) in words.into_remainder().iter_mut().zip(mask.iter().cycle()) {
        *byte ^= key;
    }
}

/// Appends the header of a final, unmasked frame, as servers send them.
pub fn push_server_header(out: &mut Vec<u8>, opcode: Opcode, body_len: usize) {
    push_header(out, 0x80 | opcode.bits(), 0, body_len);
}

/// Appends a final, masked frame, as clients send them.
pub fn push_client_frame(out: &mut Vec<u8>, opcode: Opcode, body: &[u8]) {
    push_client_fragment(out, opcode, true, body);
}

/// Appends a masked frame that is the last one of its message if `fin` is set.
pub fn push_client_fragment(out: &mut Vec<u8>, opcode: Opcode, fin: bool, body: &[u8]) {
    push_header(out, if fin { 0x80 } else { 0 } | opcode.bits(), 0x80, body.len());
    out.extend_from_slice(&CLIENT_MASK);
    let start = out.len();
    out.extend_from_slice(body);
    apply_mask(&mut out[start..], CLIENT_MASK);
}

/// Returns a masked text frame, which can be sent any number of times.
#[must_use]
pub fn client_text(body: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(body.len() + 14);
    push_client_frame(&mut frame, Opcode::Text, body);
    frame
}

fn push_header(out: &mut Vec<u8>, first: u8, mask_bit: u8, body_len: usize) {
    out.push(first);
    match (u8::try_from(body_len), u16::try_from(body_len)) {
        (Ok(short @ 0..=125), _) => out.push(mask_bit | short),
        (_, Ok(medium)) => {
            out.push(mask_bit | 126);
            out.extend_from_slice(&medium.to_be_bytes());
        }
        _ => {
            out.push(mask_bit | 127);
            out.extend_from_slice(&(body_len as u64).to_be_bytes());
        }
    }
}

/// The masking key of all client frames, so that a frame can be built once and sent often. The RFC requires an
/// unpredictable key, which protects proxies; on loopback there are none. Not zero, so that the server has to unmask.
const CLIENT_MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_is_parsed_once_complete() {
        for body_len in [0, 1, 125, 126, 127, 65_535, 65_536, 70_000] {
            let mut masked = Vec::new();
            push_client_frame(&mut masked, Opcode::Text, &vec![b'x'; body_len]);
            let mut plain = Vec::new();
            push_server_header(&mut plain, Opcode::Text, body_len);
            plain.resize(plain.len() + body_len, b'x');
            for (frame, mask) in [(&masked, Some(CLIENT_MASK)), (&plain, None)] {
                let header_len = frame.len() - body_len;
                for cut in 0..header_len {
                    assert_eq!(parse_header(&frame[..cut]), Ok(None), "cut at {cut}");
                }
                let expected = Header {
                    opcode: Opcode::Text,
                    fin: true,
                    mask,
                    header_len,
                    body_len,
                };
                assert_eq!(parse_header(&frame[..header_len]), Ok(Some(expected)));
                assert_eq!(expected.frame_len(), frame.len());
            }
        }
    }

    #[test]
    fn invalid_header_is_malformed() {
        assert_eq!(parse_header(&[0x83, 0]), Err(Malformed), "opcode 3");
        assert_eq!(parse_header(&[0xc1, 0]), Err(Malformed), "reserved bit");
        assert_eq!(
            parse_header(&[0x81, 127, 0, 0, 0, 1, 0, 0, 0, 0]),
            Err(Malformed),
            "4 GiB"
        );
    }

    #[test]
    fn masking_twice_restores_body() {
        for length in 0..40 {
            let text: Vec<u8> = (0..length).collect();
            let mut body = text.clone();
            apply_mask(&mut body, CLIENT_MASK);
            let bytewise: Vec<u8> = text
                .iter()
                .zip(CLIENT_MASK.iter().cycle())
                .map(|(byte, key)| byte ^ key)
                .collect();
            assert_eq!(body, bytewise);
            apply_mask(&mut body, CLIENT_MASK);
            assert_eq!(body, text);
        }
    }

    #[test]
    fn non_final_fragment_has_fin_unset() {
        let mut out = Vec::new();
        push_client_fragment(&mut out, Opcode::Continuation, false, b"");
        let header = parse_header(&out).expect("well formed").expect("whole");
        assert_eq!(
            (header.opcode, header.fin, header.frame_len()),
            (Opcode::Continuation, false, out.len())
        );
    }
}
