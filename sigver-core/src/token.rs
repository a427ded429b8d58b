//! The secret with which a connection takes over the role of an opener.

use alloc::{boxed::Box, format};
use core::{fmt, hint};

use thiserror::Error;

/// The secret that an opener of `sigver.v1` gets with its role. A connection that shows it takes over the role, for example after a reconnect.
/// It has at most [`Token::MAX_BYTES`] bytes.
///
/// Tokens are compared in constant time: how long a comparison takes says nothing about the token but its length. `Debug` shows nothing, and
/// there is no `Display`, to keep tokens out of logs.
///
/// ```
/// use sigver_core::{InvalidToken, Token};
///
/// let token = Token::from_random(0x00ab_cdef); // 128 bits from a cryptographically secure source
/// assert_eq!(token.as_str(), "00000000000000000000000000abcdef");
/// assert_eq!(Token::new("00000000000000000000000000abcdef")?, token);
/// assert_eq!(format!("{token:?}"), "Token");
/// # Ok::<(), InvalidToken>(())
/// ```
#[derive(Clone)]
pub struct Token(Box<str>);

impl Token {
    /// The longest token in bytes of UTF-8.
    pub const MAX_BYTES: usize = 64;

    /// Creates a token from the text that a client shows.
    ///
    /// # Errors
    ///
    /// [`InvalidToken`] if `text` is longer than [`MAX_BYTES`](Self::MAX_BYTES).
    pub fn new(text: &str) -> Result<Self, InvalidToken> {
        if text.len() > Self::MAX_BYTES {
            return Err(InvalidToken);
        }
        Ok(Self(text.into()))
    }

    /// Creates a token that cannot be guessed: the 32 hexadecimal digits of 128 random bits from a cryptographically secure source.
    pub fn from_random(bits: u128) -> Self {
        Self(format!("{bits:032x}").into())
    }

    /// Returns the token's text. It is a secret of one client.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// In constant time for tokens of the same length.
impl PartialEq for Token {
    fn eq(&self, other: &Self) -> bool {
        let (own, other) = (self.0.as_bytes(), other.0.as_bytes());
        let different = own
            .iter()
            .zip(other)
            .fold(0, |different, (own, other)| different | (own ^ other));
        // The compiler must not end the loop early.
        own.len() == other.len() && hint::black_box(different) == 0
    }
}

impl Eq for Token {}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token")
    }
}

/// The error of creating a [`Token`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
#[error("`token` is not a string of at most 64 bytes")]
pub struct InvalidToken;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_equal_if_all_bytes_are() {
        let token = |text| Token::new(text).expect("short enough");
        assert_eq!(token(""), token(""));
        assert_eq!(token("abc"), token("abc"));
        // The differences of the last cancel each other out.
        for other in ["", "ab", "abcd", "abd", "bbc", "aBc", "bac"] {
            assert_ne!(token("abc"), token(other));
            assert_ne!(token(other), token("abc"));
        }
    }

    #[test]
    fn token_has_at_most_64_bytes() {
        assert!(Token::new(&"é".repeat(32)).is_ok());
        assert_eq!(Token::new(&"i".repeat(65)), Err(InvalidToken));
    }
}
