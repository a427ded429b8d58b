//! The `Sec-WebSocket-Protocol` header (RFC 6455 section 11.3.4).

use alloc::vec::Vec;

use thiserror::Error;

/// The error of [`Dialect::parse_offers`](crate::Dialect::parse_offers): a subprotocol that is not a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("a subprotocol in Sec-WebSocket-Protocol is not a token")]
pub struct InvalidSubprotocol;

pub(super) fn parse<'a>(headers: impl IntoIterator<Item = &'a [u8]>) -> Result<Vec<&'a str>, InvalidSubprotocol> {
    headers
        .into_iter()
        .flat_map(|value| value.split(|byte| *byte == b','))
        .map(<[u8]>::trim_ascii)
        // Empty list items are legal (RFC 9110 section 5.6.1).
        .filter(|offer| !offer.is_empty())
        .map(|offer| match core::str::from_utf8(offer) {
            Ok(text) if offer.iter().all(is_token_char) => Ok(text),
            Ok(_) | Err(_) => Err(InvalidSubprotocol),
        })
        .collect()
}

fn is_token_char(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_of_all_headers_are_returned_in_order() {
        let parse = |headers: &[&'static str]| parse(headers.iter().map(|value| value.as_bytes()));
        assert_eq!(parse(&[]), Ok(Vec::new()));
        assert_eq!(parse(&["a,b", "\t c ,, d"]), Ok(["a", "b", "c", "d"].to_vec()));
        for invalid in ["a b", "a/b", "a, \u{e9}", "\"a\"", "a;q=1"] {
            assert_eq!(parse(&["fine", invalid]), Err(InvalidSubprotocol), "{invalid}");
        }
    }
}
