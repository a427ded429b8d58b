//! The claims of a token (RFC 7519 section 4), and what they permit.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde::Deserialize;
use sigver_core::Role;

use crate::access::{
    jwt::token::{Rejection, object, present},
    permit::{Permission, Permit},
};

/// The name of this server among the audiences of a token.
const AUDIENCE: &str = "sigver";

/// The claims that have a meaning here.
#[derive(Debug, Deserialize)]
pub(super) struct Claims {
    exp: f64,
    #[serde(default, deserialize_with = "present")]
    nbf: Option<f64>,
    #[serde(default, deserialize_with = "present")]
    aud: Option<Audience>,
    #[serde(default, deserialize_with = "present")]
    sub: Option<String>,
    #[serde(default)]
    open: Patterns,
    #[serde(default)]
    join: Patterns,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Several(Vec<String>),
}

/// Keys, or beginnings of keys with a `*` after them.
#[derive(Debug, Default, Deserialize)]
struct Patterns(Box<[Box<str>]>);

/// The keys of a token.
#[derive(Debug)]
struct Keys {
    open: Patterns,
    join: Patterns,
}

impl Claims {
    /// Parses the payload of a token, and checks the audience and the times.
    pub(super) fn parse(payload: &[u8], now: SystemTime) -> Result<Self, Rejection> {
        let claims: Self = object(payload).ok_or(Rejection::Claims)?;
        let is_for_us = claims.aud.as_ref().is_none_or(|audience| match audience {
            Audience::One(name) => name == AUDIENCE,
            Audience::Several(names) => names.iter().any(|name| name == AUDIENCE),
        });
        if !is_for_us {
            return Err(Rejection::Audience);
        }
        if claims.nbf.is_some_and(|nbf| !has_come(nbf, now)) {
            return Err(Rejection::NotYet);
        }
        if has_come(claims.exp, now) {
            return Err(Rejection::Expired);
        }
        Ok(claims)
    }

    pub(super) fn into_permit(self) -> Permit {
        let Self {
            exp, sub, open, join, ..
        } = self;
        let mut permit = Permit::default().with_permission(Arc::new(Keys { open, join }));
        if let Some(sub) = sub {
            permit = permit.with_identity(sub);
        }
        match time(exp) {
            Some(expiry) => permit.with_expiry(expiry),
            // Later than any time of the system.
            None => permit,
        }
    }
}

/// Returns the time of a NumericDate, the seconds since 1970. `None` if the system has no such time.
fn time(seconds: f64) -> Option<SystemTime> {
    UNIX_EPOCH.checked_add(Duration::try_from_secs_f64(seconds).ok()?)
}

/// Whether a NumericDate is not later than `now`.
fn has_come(seconds: f64, now: SystemTime) -> bool {
    seconds <= 0.0 || time(seconds).is_some_and(|time| time <= now)
}

impl Patterns {
    /// Whether one of these is the key, or its beginning. A key that nobody knows yet has any beginning, so only `*` is certain to match it.
    fn matches(&self, key: Option<&str>) -> bool {
        self.0.iter().any(|pattern| match (pattern.strip_suffix('*'), key) {
            (Some(prefix), Some(key)) => key.starts_with(prefix),
            (Some(prefix), None) => prefix.is_empty(),
            (None, key) => key == Some(pattern),
        })
    }
}

impl Permission for Keys {
    fn may(&self, role: Role, key: Option<&str>) -> bool {
        match role {
            Role::Opener => self.open.matches(key),
            Role::Joiner => self.join.matches(key),
            Role::Waiting => false,
        }
    }
}
