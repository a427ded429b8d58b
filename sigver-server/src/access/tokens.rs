//! Admission by bearer token. The server keeps digests of the tokens, and never shows or logs one.

use std::{
    collections::HashSet,
    fmt, fs, io,
    path::{Path, PathBuf},
    sync::{PoisonError, RwLock},
};

use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::access::{Admission, Denied, Handshake, permit::Permit};

/// Admits clients that send one of the tokens in a file.
///
/// The file has one token per line. Empty lines and lines that begin with `#` are ignored. A token has at least 16 characters: letters, digits
/// and `-._~`. `openssl rand -hex 16` generates one. Browsers cannot set the headers of a WebSocket, so a client may send its token in one of
/// three places:
///
/// - `Authorization: Bearer TOKEN` (RFC 6750 section 2.1),
/// - a subprotocol `sigver.bearer.TOKEN` in addition to its dialect; it is never echoed,
/// - `?token=TOKEN` after the path. Proxies log that, so it is the last choice.
///
/// Only the first token in each place counts. In the query, characters may be percent-encoded. A client without a valid token gets HTTP 401.
///
/// ```no_run
/// use std::sync::Arc;
/// use sigver_server::{Config, Tokens};
///
/// let tokens = Arc::new(Tokens::from_file("/etc/sigver/tokens")?);
/// let mut config = Config::default();
/// config.admission.push(Arc::<Tokens>::clone(&tokens));
/// // when the file has changed:
/// println!("{} tokens", tokens.reload()?);
/// # Ok::<(), sigver_server::TokensError>(())
/// ```
pub struct Tokens {
    path: PathBuf,
    digests: RwLock<HashSet<TokenDigest>>,
}

/// The SHA-256 digest of a token. Looking one up takes a time that says nothing about the tokens of the file, however many these are.
type TokenDigest = [u8; 32];

/// The error of reading a file of tokens.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TokensError {
    /// The file cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// A line is not a token.
    #[error("{path}, line {line}: a token is 16 or more letters, digits and -._~")]
    Line {
        /// The file.
        path: PathBuf,
        /// The line number, counted from 1. The line is not shown, because it may be almost a token.
        line: usize,
    },
    /// The file has no token, so no client could connect.
    #[error("{path} has no token")]
    None {
        /// The file.
        path: PathBuf,
    },
}

/// The shortest token: 64 bits, where every character carries four.
const SHORTEST: usize = 16;

impl Tokens {
    /// Reads a file of tokens.
    ///
    /// # Errors
    ///
    /// The file cannot be read, or is not a file of tokens.
    pub fn from_file(path: impl Into<PathBuf>) -> Result<Self, TokensError> {
        let path = path.into();
        let digests = RwLock::new(read(&path)?);
        Ok(Self { path, digests })
    }

    /// Reads the file again. Returns the number of tokens. Connected clients stay, also if their token was removed.
    ///
    /// # Errors
    ///
    /// Those of [`from_file`](Self::from_file). The tokens then stay as they were.
    pub fn reload(&self) -> Result<usize, TokensError> {
        let digests = read(&self.path)?;
        let count = digests.len();
        *self.digests.write().unwrap_or_else(PoisonError::into_inner) = digests;
        Ok(count)
    }

    /// Whether this is one of the tokens.
    fn has(&self, offered: &[u8]) -> bool {
        let digests = self.digests.read().unwrap_or_else(PoisonError::into_inner);
        digests.contains(&digest(offered))
    }
}

fn digest(token: &[u8]) -> TokenDigest {
    Sha256::digest(token).into()
}

/// Shows the number of tokens.
impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.digests.read().unwrap_or_else(PoisonError::into_inner).len();
        f.debug_struct("Tokens")
            .field("path", &self.path)
            .field("count", &count)
            .finish_non_exhaustive()
    }
}

impl Admission for Tokens {
    fn admit(&self, handshake: &Handshake<'_>) -> Result<Permit, Denied> {
        if handshake.bearer_tokens().any(|token| self.has(token.as_bytes())) {
            Ok(Permit::default())
        } else {
            Err(Denied::new(401, "a token is needed to connect"))
        }
    }
}

/// Reads a file of tokens and returns their digests. The file may begin with a byte order mark.
fn read(path: &Path) -> Result<HashSet<TokenDigest>, TokensError> {
    let text = fs::read(path).map_err(|source| TokensError::Read {
        path: path.to_owned(),
        source,
    })?;
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&text);
    let mut tokens = HashSet::new();
    for (line, token) in text.split(|byte| *byte == b'\n').enumerate() {
        let token = token.trim_ascii();
        if token.is_empty() || token.starts_with(b"#") {
            continue;
        }
        let is_token = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~".contains(byte);
        if token.len() < SHORTEST || !token.iter().all(is_token) {
            return Err(TokensError::Line {
                path: path.to_owned(),
                line: line + 1,
            });
        }
        tokens.insert(digest(token));
    }
    if tokens.is_empty() {
        return Err(TokensError::None { path: path.to_owned() });
    }
    Ok(tokens)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    /// A file that is there as long as this.
    struct File(PathBuf);

    impl File {
        fn with(name: &str, text: &str) -> Self {
            let path = std::env::temp_dir().join(format!("sigver-{}-{name}", std::process::id()));
            fs::write(&path, text).expect("a temporary file");
            Self(path)
        }
    }

    impl Drop for File {
        fn drop(&mut self) {
            let _ = fs::remove_file(&self.0);
        }
    }

    #[test]
    fn a_file_has_a_token_a_line() -> Result<(), TokensError> {
        let file = File::with(
            "tokens",
            "# of the app\n0123456789abcdef\n\n  with/a/slash-0123456789  \r\n",
        );
        assert!(matches!(
            Tokens::from_file(&file.0),
            Err(TokensError::Line { line: 4, .. })
        ));
        fs::write(
            &file.0,
            "\u{feff}# of the app\n0123456789abcdef\n\n  all_of.-~-0123456789  \r\n",
        )
        .expect("written");
        let tokens = Tokens::from_file(&file.0)?;
        assert!(tokens.has(b"0123456789abcdef") && tokens.has(b"all_of.-~-0123456789"));
        for other in [
            "",
            "# of the app",
            "0123456789abcde",
            "0123456789abcdeF",
            "0123456789abcdef0",
        ] {
            assert!(!tokens.has(other.as_bytes()), "{other:?}");
        }
        assert!(!format!("{tokens:?}").contains("0123"));
        Ok(())
    }

    #[test]
    fn a_file_that_is_no_such_file_changes_nothing() -> Result<(), TokensError> {
        let file = File::with("reload", "0123456789abcdef\n");
        let tokens = Tokens::from_file(&file.0)?;
        for wrong in [
            "",
            "# none\n",
            "0123456789abcdef\nshort\n",
            "with spaces in it, and long\n",
        ] {
            fs::write(&file.0, wrong).expect("written");
            let problem = tokens.reload().expect_err("no tokens").to_string();
            assert!(!problem.contains("short"), "{problem}");
            assert!(tokens.has(b"0123456789abcdef"));
        }
        fs::remove_file(&file.0).expect("it is there");
        assert!(matches!(tokens.reload(), Err(TokensError::Read { .. })));
        fs::write(&file.0, "fedcba9876543210\nanother-0123456789\n").expect("written");
        assert_eq!(tokens.reload()?, 2);
        assert!(tokens.has(b"fedcba9876543210") && !tokens.has(b"0123456789abcdef"));
        Ok(())
    }
}
