//! The client's half of the upgrade (RFC 6455, section 4.1).
//!
//! One key for all connections: the answer to it is known, so the generator need not hash.

use std::net::SocketAddr;

/// The request that asks `addr` for a WebSocket at `path`. It offers no subprotocol: the plain protocol.
#[must_use]
pub fn request(addr: SocketAddr, path: &str) -> Vec<u8> {
    format!(
        "GET {path} HTTP/1.1\r\nHost: {addr}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    .into_bytes()
}

/// How the server answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Response {
    /// It is a WebSocket now; frames start at this offset.
    Upgraded(usize),
    /// It said no, with this status (0 when it does not speak HTTP, 101 when it answered another's key).
    Refused(u16),
}

/// Reads the response at the front of `bytes`; `None` until all of its head is there.
#[must_use]
pub fn parse_response(bytes: &[u8]) -> Option<Response> {
    let Some(head_len) = memchr::memmem::find(bytes, b"\r\n\r\n") else {
        return (bytes.len() > HEAD_LIMIT).then_some(Response::Refused(0));
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
        .any(|(name, value)| name.eq_ignore_ascii_case("sec-websocket-accept") && value.trim() == ACCEPT);
    Some(if status == 101 && accepted {
        Response::Upgraded(head_len + 4)
    } else {
        Response::Refused(status)
    })
}

/// The example of RFC 6455, section 1.3, and its answer.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

const HEAD_LIMIT: usize = 16 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    const YES: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nSEC-WebSocket-Accept: \
        s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

    #[test]
    fn a_response_cut_anywhere_is_waited_for() {
        for cut in 0..YES.len() {
            assert_eq!(parse_response(&YES[..cut]), None, "cut at {cut}");
        }
        let mut and_a_frame = YES.to_vec();
        and_a_frame.extend_from_slice(&[0x81, 0]);
        assert_eq!(parse_response(&and_a_frame), Some(Response::Upgraded(YES.len())));
    }

    #[test]
    fn anything_else_is_a_refusal() {
        let full = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n";
        assert_eq!(parse_response(full), Some(Response::Refused(503)));
        let anothers = b"HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: x\r\n\r\n";
        assert_eq!(parse_response(anothers), Some(Response::Refused(101)));
        assert_eq!(parse_response(b"\xff\r\n\r\n"), Some(Response::Refused(0)));
        assert_eq!(parse_response(&[b'x'; HEAD_LIMIT + 1]), Some(Response::Refused(0)));
    }

    #[test]
    fn the_answer_is_the_key_s() {
        assert_eq!(tungstenite::handshake::derive_accept_key(KEY.as_bytes()), ACCEPT);
    }
}
