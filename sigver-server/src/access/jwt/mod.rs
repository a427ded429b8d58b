//! Admission by JSON Web Token (RFC 7519). Tokens and keys are neither shown nor logged.

mod claims;
mod key_set;
#[cfg(all(test, not(loom)))]
mod tests;
mod token;

use std::{
    borrow::Cow,
    fmt, fs, io,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
    time::SystemTime,
};

use thiserror::Error;

use crate::access::{
    Admission, Denied, Handshake,
    jwt::{
        claims::Claims,
        key_set::{InvalidKeySet, KeySet},
        token::{Rejection, verify_signature},
    },
    permit::Permit,
};

/// Admits clients that send a JSON Web Token (RFC 7519) signed by a key of a file.
///
/// A client sends its token in one of the three places of [`Tokens`](crate::Tokens). A client without a valid token gets HTTP 401.
///
/// # Keys
///
/// The file is a JWK Set (RFC 7517). These keys are used:
///
/// | `kty` | `crv` | algorithm of the token | key |
/// |---|---|---|---|
/// | `oct` | | `HS256` | a secret of at least 32 bytes |
/// | `EC` | `P-256` | `ES256` | public |
/// | `OKP` | `Ed25519` | `EdDSA` or `Ed25519` | public |
///
/// Keys of other types, curves and algorithms are ignored, and so are keys that are not for signatures (`use`, `key_ops`): a set may serve
/// other programs as well. [`ignored`](Self::ignored) returns why. Any other fault of a key is an error, and so is a private key: a
/// server that only checks signatures should not be able to make them.
///
/// If a token has a `kid`, the key with this `kid` must have signed it. Otherwise, any key of its algorithm may have. To replace a key, add the
/// new one to the file and [`reload`](Self::reload) it; sign with the new key; remove the old one when its last token has expired.
///
/// # Claims
///
/// | claim | value | meaning |
/// |---|---|---|
/// | `exp` | number, required | the seconds since 1970 at which the token expires ([`Permit::with_expiry`]) |
/// | `nbf` | number | the seconds since 1970 before which the token is not valid |
/// | `aud` | string or list of strings | must be or contain `sigver` if it is present |
/// | `sub` | string | the [identity](Permit::identity) of the client |
/// | `open` | list of strings | the keys that the client may open. A `*` at the end of a string stands for any text |
/// | `join` | list of strings | the keys that the client may join |
///
/// Without `open` or `join`, the client may open or join no key. Only the string `*` also allows a key that the server generates. Times may
/// have a fraction. They are compared with the clock of the system, without leeway. Other claims are ignored. If a claim of this table has
/// another type, or is given twice, the token is not valid.
///
/// A removed key and a changed file do not end connections: a connection ends when its token expires.
///
/// ```no_run
/// use std::sync::Arc;
/// use sigver_server::{Config, JwtKeys};
///
/// let keys = Arc::new(JwtKeys::from_file("/etc/sigver/jwt-keys.json")?);
/// let mut config = Config::default();
/// config.admission.push(Arc::<JwtKeys>::clone(&keys));
/// // when the file has changed:
/// println!("{} keys", keys.reload()?);
/// # Ok::<(), sigver_server::JwtKeysError>(())
/// ```
pub struct JwtKeys {
    path: PathBuf,
    keys: RwLock<Arc<KeySet>>,
}

/// The error of reading a file of keys. It shows no part of a key.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum JwtKeysError {
    /// The file cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// The file is not a JWK Set, or has no key that can be used, so no client could connect.
    #[error("{path}: {reason}")]
    Set {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: Cow<'static, str>,
    },
    /// A key is not valid.
    #[error("{path}, key {number}: {reason}")]
    Key {
        /// The file.
        path: PathBuf,
        /// The position of the key, counted from 1.
        number: usize,
        /// What is wrong.
        reason: Cow<'static, str>,
    },
}

impl JwtKeys {
    /// Reads a file of keys.
    ///
    /// # Errors
    ///
    /// The file cannot be read, is not a JWK Set, or has an invalid key or none.
    pub fn from_file(path: impl Into<PathBuf>) -> Result<Self, JwtKeysError> {
        let path = path.into();
        let keys = RwLock::new(Arc::new(read(&path)?));
        Ok(Self { path, keys })
    }

    /// Reads the file again. Returns the number of keys that are used.
    ///
    /// # Errors
    ///
    /// Those of [`from_file`](Self::from_file). The keys then stay as they were.
    pub fn reload(&self) -> Result<usize, JwtKeysError> {
        let keys = Arc::new(read(&self.path)?);
        let count = keys.len();
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = keys;
        Ok(count)
    }

    /// Returns a line for each key of the file that is ignored: its number and the reason.
    pub fn ignored(&self) -> Vec<String> {
        self.keys().ignored().to_vec()
    }

    fn keys(&self) -> Arc<KeySet> {
        Arc::clone(&self.keys.read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Shows the number of keys.
impl fmt::Debug for JwtKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JwtKeys")
            .field("path", &self.path)
            .field("count", &self.keys().len())
            .finish_non_exhaustive()
    }
}

impl Admission for JwtKeys {
    fn admit(&self, handshake: &Handshake<'_>) -> Result<Permit, Denied> {
        let (keys, now) = (self.keys(), SystemTime::now());
        let mut first = None;
        for token in handshake.bearer_tokens() {
            match verify(&token, &keys, now) {
                Ok(claims) => return Ok(claims.into_permit()),
                Err(rejection) => first = first.or(Some(rejection)),
            }
        }
        let reason = first.unwrap_or(Rejection::Missing);
        Err(Denied::new(401, "a token is needed to connect").with_reason(reason.to_string()))
    }
}

/// Returns the claims of a token that one of the keys has signed, and that is valid at this time.
fn verify(token: &str, keys: &KeySet, now: SystemTime) -> Result<Claims, Rejection> {
    Claims::parse(&verify_signature(token, keys)?, now)
}

fn read(path: &Path) -> Result<KeySet, JwtKeysError> {
    let path_buf = || path.to_owned();
    let text = fs::read(path).map_err(|source| JwtKeysError::Read {
        path: path_buf(),
        source,
    })?;
    KeySet::parse(&text).map_err(|invalid| match invalid {
        InvalidKeySet::Set(reason) => JwtKeysError::Set {
            path: path_buf(),
            reason,
        },
        InvalidKeySet::Key(number, reason) => JwtKeysError::Key {
            path: path_buf(),
            number,
            reason,
        },
    })
}
