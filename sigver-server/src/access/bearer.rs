//! Where a client may put a bearer token.

use std::borrow::Cow;

use crate::access::Handshake;

/// The prefix of a subprotocol that carries a token.
pub(crate) const SUBPROTOCOL: &str = "sigver.bearer.";

impl<'a> Handshake<'a> {
    /// Returns the client's bearer token: the first in `Authorization: Bearer TOKEN` (RFC 6750 section 2.1), in a subprotocol
    /// `sigver.bearer.TOKEN`, or in `?token=TOKEN`, percent-decoded. A token that is not UTF-8 is skipped.
    pub fn bearer_token(&self) -> Option<Cow<'a, str>> {
        self.bearer_tokens().next()
    }

    /// Returns the first bearer token of each place.
    pub(crate) fn bearer_tokens(&self) -> impl Iterator<Item = Cow<'a, str>> + use<'a> {
        let in_header = self.headers("Authorization").find_map(after_bearer);
        let in_header = in_header.and_then(|token| Some(Cow::Borrowed(std::str::from_utf8(token).ok()?)));
        let in_subprotocol = self.subprotocols().find_map(|name| name.strip_prefix(SUBPROTOCOL));
        let in_query = self.query().and_then(token_parameter);
        let in_query = in_query.and_then(|token| Some(Cow::Owned(String::from_utf8(token).ok()?)));
        [in_header, in_subprotocol.map(Cow::Borrowed), in_query]
            .into_iter()
            .flatten()
    }
}

/// Returns the token of an `Authorization` header. Its scheme is case-insensitive (RFC 9110 section 11.1).
fn after_bearer(value: &[u8]) -> Option<&[u8]> {
    let value = value.trim_ascii();
    let (scheme, token) = value.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii())
}

/// Returns the value of the first parameter `token` of a query.
fn token_parameter(query: &str) -> Option<Vec<u8>> {
    query.split('&').find_map(|pair| {
        let (name, value) = pair.split_once('=')?;
        (percent_decode(name) == b"token").then(|| percent_decode(value))
    })
}

/// Decodes a part of a URL (RFC 3986 section 2.1). A `%` without two hexadecimal digits stays.
fn percent_decode(text: &str) -> Vec<u8> {
    let mut rest = text.as_bytes();
    let mut decoded = Vec::with_capacity(rest.len());
    while let [first, after @ ..] = rest {
        let digits = match (first, after) {
            (b'%', [high, low, ..]) => hex_digit(*high).zip(hex_digit(*low)),
            _ => None,
        };
        let (byte, length) = digits.map_or((*first, 1), |(high, low)| (high << 4 | low, 3));
        decoded.push(byte);
        rest = &rest[length..];
    }
    decoded
}

fn hex_digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| digit.try_into().ok())
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn first_parameter_of_the_query_is_decoded() {
        for (query, token) in [
            ("token=abc", Some(&b"abc"[..])),
            ("a=b&token=abc&token=def", Some(b"abc")),
            ("token=%61b%2D%2d%7e&x", Some(b"ab--~")),
            ("%74oken=a=b", Some(b"a=b")),
            ("token=", Some(b"")),
            ("token=%", Some(b"%")),
            ("token=%6", Some(b"%6")),
            ("token=%6g%+1", Some(b"%6g%+1")),
            ("token=%ff%00", Some(b"\xff\0")),
            ("token", None),
            ("Token=abc", None),
            ("", None),
        ] {
            assert_eq!(token_parameter(query).as_deref(), token, "{query}");
        }
    }

    #[test]
    fn the_scheme_is_bearer_in_any_case() {
        assert_eq!(after_bearer(b"Bearer abc"), Some(&b"abc"[..]));
        assert_eq!(after_bearer(b" bEARER   abc "), Some(&b"abc"[..]));
        assert_eq!(after_bearer(b"Basic abc"), None);
        assert_eq!(after_bearer(b"Bearer"), None);
        assert_eq!(after_bearer(b""), None);
    }
}
