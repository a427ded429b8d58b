//! The signature of a token: a JWS in compact form (RFC 7515 section 7.1).

use std::borrow::Cow;

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use serde::{Deserialize, Deserializer, de::IgnoredAny};
use thiserror::Error;

use crate::access::jwt::key_set::{Algorithm, KeySet};

/// Why a token is not accepted. It is logged and not sent to the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(super) enum Rejection {
    #[error("no token")]
    Missing,
    #[error("the token is not a signed JSON Web Token")]
    NotSigned,
    #[error("the algorithm of the token is not HS256, ES256 or EdDSA")]
    Algorithm,
    #[error("the token requires an extension (`crit`)")]
    Critical,
    #[error("no key of this algorithm has the `kid` of the token")]
    UnknownKey,
    #[error("no key of this algorithm")]
    NoKey,
    #[error("the signature of the token is invalid")]
    Signature,
    #[error("a claim of the token is missing, repeated or has the wrong type")]
    Claims,
    #[error("the token is for another audience")]
    Audience,
    #[error("the token has expired")]
    Expired,
    #[error("the token is not valid yet")]
    NotYet,
}

/// The members of a header that have a meaning here. Unknown members are skipped without recursion.
#[derive(Deserialize)]
struct Header<'a> {
    #[serde(borrow)]
    alg: Cow<'a, str>,
    #[serde(borrow, default, deserialize_with = "present")]
    kid: Option<Cow<'a, str>>,
    /// Extensions that must be understood. None is.
    #[serde(default, deserialize_with = "present")]
    crit: Option<IgnoredAny>,
}

/// Returns the payload of a token that one of the keys has signed.
pub(super) fn verify_signature(token: &str, keys: &KeySet) -> Result<Vec<u8>, Rejection> {
    let (signed, signature) = token.rsplit_once('.').ok_or(Rejection::NotSigned)?;
    let (header, payload) = signed.split_once('.').ok_or(Rejection::NotSigned)?;
    let [header, payload, signature] = [header, payload, signature].map(|part| BASE64_URL_SAFE_NO_PAD.decode(part));
    let (Ok(header), Ok(payload), Ok(signature)) = (header, payload, signature) else {
        return Err(Rejection::NotSigned);
    };
    let header: Header<'_> = object(&header).ok_or(Rejection::NotSigned)?;
    if header.crit.is_some() {
        return Err(Rejection::Critical);
    }
    // The algorithm selects keys of its own kind, so a public key is never the secret of an HMAC.
    let algorithm = Algorithm::named(&header.alg).ok_or(Rejection::Algorithm)?;
    let mut matching = keys.matching(algorithm, header.kid.as_deref()).peekable();
    if matching.peek().is_none() {
        return Err(match header.kid {
            Some(_) => Rejection::UnknownKey,
            None => Rejection::NoKey,
        });
    }
    if !matching.any(|key| key.verify(signed.as_bytes(), &signature)) {
        return Err(Rejection::Signature);
    }
    Ok(payload)
}

/// Parses an object. A derived implementation also takes an array for one.
pub(super) fn object<'a, T: Deserialize<'a>>(text: &'a [u8]) -> Option<T> {
    let is_object = text.trim_ascii_start().starts_with(b"{");
    is_object.then(|| serde_json::from_slice(text).ok()).flatten()
}

/// Parses a member that may be absent but not `null`.
pub(super) fn present<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}
