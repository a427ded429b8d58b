//! JWK Sets (RFC 7517), and the keys of RFC 7518 and RFC 8037 that verify a token.

use std::{borrow::Cow, collections::HashMap};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use ed25519_dalek::Signature as Ed25519Signature;
use hmac::{Hmac, KeyInit, Mac};
use p256::ecdsa::{Signature as P256Signature, signature::Verifier as _};
use serde_json::{Map, Value};
use sha2::Sha256;

/// The shortest secret for HS256, in bytes (RFC 7518 section 3.2).
const SHORTEST_SECRET: usize = 32;

/// How a token is signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Algorithm {
    Hs256,
    Es256,
    /// With the curve Ed25519 only.
    EdDsa,
}

impl Algorithm {
    /// Returns the algorithm with this name in the header of a token or in a key.
    pub(super) fn named(name: &str) -> Option<Self> {
        match name {
            "HS256" => Some(Self::Hs256),
            "ES256" => Some(Self::Es256),
            // RFC 8037, and RFC 9864 with the curve in the name.
            "EdDSA" | "Ed25519" => Some(Self::EdDsa),
            _ => None,
        }
    }
}

/// The keys that are used.
#[derive(Default)]
pub(super) struct KeySet {
    keys: Vec<Key>,
    ignored: Vec<String>,
}

pub(super) struct Key {
    id: Option<String>,
    verifier: Verifier,
}

/// A key with its algorithm. A key of one algorithm is never used for another.
enum Verifier {
    /// Boxed, because it is several times as large as the others.
    Hs256(Box<Hmac<Sha256>>),
    Es256(p256::ecdsa::VerifyingKey),
    EdDsa(ed25519_dalek::VerifyingKey),
}

/// Why a file is not a set of keys.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum InvalidKeySet {
    Set(Cow<'static, str>),
    /// The number of the key, counted from 1.
    Key(usize, Cow<'static, str>),
}

/// Why one key is not used.
enum Unusable {
    /// It is for something else.
    Ignored(&'static str),
    Invalid(&'static str),
}

use Unusable::{Ignored, Invalid};

impl KeySet {
    /// Parses the text of a JWK Set, which may begin with a byte order mark.
    pub(super) fn parse(text: &[u8]) -> Result<Self, InvalidKeySet> {
        let invalid = |reason: &'static str| InvalidKeySet::Set(reason.into());
        let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
        let set: Value = serde_json::from_slice(text).map_err(|error| {
            InvalidKeySet::Set(format!("invalid JSON in line {}, column {}", error.line(), error.column()).into())
        })?;
        if set.get("kty").is_some() {
            return Err(invalid(
                "this is one key; a JWK Set has its keys in a list, {\"keys\":[…]}",
            ));
        }
        let keys = set.get("keys").and_then(Value::as_array);
        let keys = keys.ok_or_else(|| invalid("not a JWK Set, which is an object with a list `keys`"))?;
        let (mut used, mut numbers) = (Self::default(), HashMap::new());
        for (key, number) in keys.iter().zip(1..) {
            let key = key.as_object().ok_or(Invalid("a key is an object"));
            let key = match key.and_then(Key::parse) {
                Ok(key) => key,
                Err(Ignored(reason)) => {
                    used.ignored.push(format!("key {number} is ignored: {reason}"));
                    continue;
                }
                Err(Invalid(reason)) => return Err(InvalidKeySet::Key(number, reason.into())),
            };
            if let Some(id) = &key.id {
                if let Some(other) = numbers.insert((key.algorithm(), id.clone()), number) {
                    return Err(InvalidKeySet::Key(
                        number,
                        format!("the same `kid` as key {other}").into(),
                    ));
                }
            }
            used.keys.push(key);
        }
        match (&used.keys[..], &used.ignored[..]) {
            ([], []) => Err(invalid("the set has no keys")),
            ([], [first, ..]) => Err(InvalidKeySet::Set(
                format!("no key for HS256, ES256 or EdDSA: {first}").into(),
            )),
            _ => Ok(used),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.keys.len()
    }

    pub(super) fn ignored(&self) -> &[String] {
        &self.ignored
    }

    /// Returns the keys that may have signed a token.
    pub(super) fn matching(&self, algorithm: Algorithm, id: Option<&str>) -> impl Iterator<Item = &Key> {
        let is_named = move |key: &Key| id.is_none() || key.id.as_deref() == id;
        self.keys
            .iter()
            .filter(move |key| key.algorithm() == algorithm && is_named(key))
    }
}

impl Key {
    fn parse(key: &Map<String, Value>) -> Result<Self, Unusable> {
        let text = |name: &str, reason| match key.get(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(&**text)),
            Some(_) => Err(Invalid(reason)),
        };
        let kind = text("kty", "`kty` is not a string")?.ok_or(Invalid("`kty` is missing"))?;
        let curve = text("crv", "`crv` is not a string")?;
        let algorithm = match (kind, curve) {
            ("oct", _) => Algorithm::Hs256,
            ("EC", Some("P-256")) => Algorithm::Es256,
            ("OKP", Some("Ed25519")) => Algorithm::EdDsa,
            ("EC" | "OKP", None) => return Err(Invalid("`crv` is missing")),
            ("EC" | "OKP", Some(_)) => return Err(Ignored("`crv` is neither P-256 nor Ed25519")),
            _ => return Err(Ignored("`kty` is not oct, EC or OKP")),
        };
        match text("use", "`use` is not a string")? {
            None | Some("sig") => {}
            Some(_) => return Err(Ignored("`use` is not sig")),
        }
        match key.get("key_ops") {
            None => {}
            Some(Value::Array(operations)) if operations.iter().any(|operation| operation == "verify") => {}
            Some(Value::Array(_)) => return Err(Ignored("`key_ops` is without verify")),
            Some(_) => return Err(Invalid("`key_ops` is not a list")),
        }
        if let Some(name) = text("alg", "`alg` is not a string")? {
            match Algorithm::named(name) {
                Some(named) if named == algorithm => {}
                Some(_) => return Err(Invalid("`alg` and `kty` contradict each other")),
                None => return Err(Ignored("`alg` is not HS256, ES256 or EdDSA")),
            }
        }
        if algorithm != Algorithm::Hs256 && key.contains_key("d") {
            return Err(Invalid(
                "a private key: the server needs the public key only, so remove `d`",
            ));
        }
        let id = text("kid", "`kid` is not a string")?.map(str::to_owned);
        Ok(Self {
            id,
            verifier: Verifier::parse(algorithm, key)?,
        })
    }

    fn algorithm(&self) -> Algorithm {
        match self.verifier {
            Verifier::Hs256(_) => Algorithm::Hs256,
            Verifier::Es256(_) => Algorithm::Es256,
            Verifier::EdDsa(_) => Algorithm::EdDsa,
        }
    }

    /// Whether this is the signature of `signed`.
    pub(super) fn verify(&self, signed: &[u8], signature: &[u8]) -> bool {
        match &self.verifier {
            Verifier::Hs256(mac) => {
                let mut mac = (**mac).clone();
                mac.update(signed);
                mac.verify_slice(signature).is_ok()
            }
            Verifier::Es256(key) => {
                P256Signature::from_slice(signature).is_ok_and(|signature| key.verify(signed, &signature).is_ok())
            }
            Verifier::EdDsa(key) => Ed25519Signature::from_slice(signature)
                .is_ok_and(|signature| key.verify_strict(signed, &signature).is_ok()),
        }
    }
}

impl Verifier {
    fn parse(algorithm: Algorithm, key: &Map<String, Value>) -> Result<Self, Unusable> {
        let bytes = |name: &str| BASE64_URL_SAFE_NO_PAD.decode(key.get(name)?.as_str()?).ok();
        let array = |name: &str| <[u8; 32]>::try_from(bytes(name)?).ok();
        match algorithm {
            Algorithm::Hs256 => {
                let secret = bytes("k").ok_or(Invalid("`k` is not in base64url"))?;
                if secret.len() < SHORTEST_SECRET {
                    return Err(Invalid("`k` has less than 32 bytes, which is too short for HS256"));
                }
                let mac = Hmac::new_from_slice(&secret).map_err(|_| Invalid("`k` is not a key"))?;
                Ok(Self::Hs256(Box::new(mac)))
            }
            Algorithm::Es256 => {
                const REASON: Unusable = Invalid("`x` and `y` are not a point of P-256 in base64url");
                let (x, y) = array("x").zip(array("y")).ok_or(REASON)?;
                let point = p256::Sec1Point::from_affine_coordinates(&x.into(), &y.into(), false);
                let key = p256::ecdsa::VerifyingKey::from_sec1_point(&point).map_err(|_| REASON)?;
                Ok(Self::Es256(key))
            }
            Algorithm::EdDsa => {
                const REASON: Unusable = Invalid("`x` is not a key of Ed25519 in base64url");
                let key = ed25519_dalek::VerifyingKey::from_bytes(&array("x").ok_or(REASON)?).map_err(|_| REASON)?;
                // Anybody can sign for such a key.
                if key.is_weak() {
                    return Err(REASON);
                }
                Ok(Self::EdDsa(key))
            }
        }
    }
}
