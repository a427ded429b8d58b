//! Tells a WebSocket opening handshake (RFC 6455 section 4.2.1) from any other request.

use sigver_core::Dialect;

use crate::http::{head::Head, response::Response};

/// What a client requests.
pub(crate) enum Request<'a> {
    /// A valid opening handshake.
    Upgrade(OpeningHandshake<'a>),
    /// Any other request.
    Plain,
}

/// What matters of an opening handshake.
pub(crate) struct OpeningHandshake<'a> {
    /// `Sec-WebSocket-Key`.
    pub(crate) key: &'a str,
    /// The offered subprotocols.
    pub(crate) offers: Vec<&'a str>,
}

impl<'a> Request<'a> {
    /// Classifies a request.
    ///
    /// # Errors
    ///
    /// The response to a request that is not valid HTTP, or to an invalid handshake.
    pub(crate) fn of(head: &Head<'a>) -> Result<Self, Response> {
        let headers = head.headers;
        // RFC 9112 section 3.2. HTTP/1.0 does not require it.
        let hosts = headers.all("Host").count();
        if hosts > 1 || (hosts == 0 && head.version > 0) {
            return Err(Response::BAD_HOST);
        }
        if headers.lists("Upgrade", "websocket") && headers.lists("Connection", "upgrade") {
            if head.version == 0 {
                return Err(Response::HTTP_VERSION);
            }
            OpeningHandshake::of(head).map(Self::Upgrade)
        } else {
            Ok(Self::Plain)
        }
    }
}

impl<'a> OpeningHandshake<'a> {
    /// Checks a request for an upgrade, in the order of RFC 6455 section 4.2.1.
    fn of(head: &Head<'a>) -> Result<Self, Response> {
        let headers = head.headers;
        if head.method != "GET" {
            return Err(Response::HANDSHAKE_METHOD);
        }
        let has_body = headers.all("Content-Length").any(|length| length.trim_ascii() != b"0")
            || headers.all("Transfer-Encoding").next().is_some();
        if has_body {
            return Err(Response::HAS_BODY);
        }
        if headers.only("Sec-WebSocket-Version") != Some(b"13") {
            return Err(Response::WRONG_VERSION);
        }
        let key = headers
            .only("Sec-WebSocket-Key")
            .and_then(websocket_key)
            .ok_or(Response::BAD_KEY)?;
        let offers =
            Dialect::parse_offers(headers.all("Sec-WebSocket-Protocol")).map_err(|_| Response::BAD_SUBPROTOCOL)?;
        Ok(Self { key, offers })
    }
}

/// Returns a valid `Sec-WebSocket-Key`: 16 bytes in base64, which is 22 digits and two bytes of padding.
fn websocket_key(key: &[u8]) -> Option<&str> {
    let digits = key.strip_suffix(b"==")?;
    let is_valid = digits.len() == 22
        && digits
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/'));
    std::str::from_utf8(key).ok().filter(|_| is_valid)
}
