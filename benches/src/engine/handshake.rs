//! The client side of the opening handshake (RFC 6455, section 4.1).
//!
//! All connections send the same key, so that the expected answer is a constant and needs no hashing.

use std::net::SocketAddr;

/// Returns the upgrade request for `path` at `addr`. It offers no subprotocol, which selects the plain protocol.
#[must_use]
pub fn request(addr: SocketAddr, path: &str) -> Vec<u8> {
    format!(
        "GET {path} HTTP/1.1\r\nHost: {addr}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: {SAMPLE_KEY}\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    .into_bytes()
}

/// The response of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Response {
    /// Accepted. Frames start at this offset.
    Upgraded(usize),
    /// Rejected with this status: 0 if the response is not HTTP, 101 if the key does not match.
    Rejected(u16),
}

/// Parses the response at the start of `bytes`. Returns `None` if its head is incomplete.
#[must_use]
pub fn parse_response(bytes: &[u8]) -> Option<Response> {
    let Some(head_len) = memchr::memmem::find(bytes, b"\r\n\r\n") else {
        return (bytes.len() > MAX_HEAD_LEN).then_some(Response::Rejected(0));
    };
    let head = std::str::from_utf8(&bytes[..head_len]).unwrap_or_default();
    let mut lines = head.split("\r\n");
    let status = lines
        .next()
        .and_then(|line| line.strip_prefix("HTTP/1.1 "))
        .and_then(|line| line.get(..3)?.parse().ok())
        .unwrap_or(0);
    let accepted = lines
        .filter_map(|line| line.split_once(':'))
        .any(|(name, value)| name.eq_ignore_ascii_case("sec-websocket-accept") && value.trim() == SAMPLE_ACCEPT);
    Some(if status == 101 && accepted {
        Response::Upgraded(head_len + 4)
    } else {
        Response::Rejected(status)
    })
}

/// The example key of RFC 6455, section 1.3, and its answer.
const SAMPLE_KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const SAMPLE_ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

const MAX_HEAD_LEN: usize = 16 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    const ACCEPTED: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nSEC-WebSocket-Accept: \
        s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

    #[test]
    fn incomplete_response_is_none() {
        for cut in 0..ACCEPTED.len() {
            assert_eq!(parse_response(&ACCEPTED[..cut]), None, "cut at {cut}");
        }
        let mut with_frame = ACCEPTED.to_vec();
        with_frame.extend_from_slice(&[0x81, 0]);
        assert_eq!(parse_response(&with_frame), Some(Response::Upgraded(ACCEPTED.len())));
    }

    #[test]
    fn any_other_response_is_rejected() {
        let full = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n";
        assert_eq!(parse_response(full), Some(Response::Rejected(503)));
        let other_key = b"HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: x\r\n\r\n";
        assert_eq!(parse_response(other_key), Some(Response::Rejected(101)));
        assert_eq!(parse_response(b"\xff\r\n\r\n"), Some(Response::Rejected(0)));
        assert_eq!(parse_response(&[b'x'; MAX_HEAD_LEN + 1]), Some(Response::Rejected(0)));
    }

    #[test]
    fn sample_accept_matches_sample_key() {
        assert_eq!(
            tungstenite::handshake::derive_accept_key(SAMPLE_KEY.as_bytes()),
            SAMPLE_ACCEPT
        );
    }
}
