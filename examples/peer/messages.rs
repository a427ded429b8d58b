//! The messages of `sigver.v1` that this client uses.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The subprotocol to offer.
pub(crate) const SUBPROTOCOL: &str = "sigver.v1";

/// A message from the server.
#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub(crate) enum Received {
    Opened {
        key: String,
        token: Option<String>,
        #[serde(default)]
        joiners: Vec<Joiner>,
    },
    Waiting {
        key: String,
    },
    Joined {
        index: u32,
        id: Option<String>,
    },
    Join(Joiner),
    Leave {
        index: u32,
    },
    Data {
        index: Option<u32>,
        data: Value,
    },
    Reopened,
    Closed {
        code: String,
    },
    Error {
        code: String,
        message: String,
    },
    Pong,
    /// A message that a later version has added.
    #[serde(other)]
    Unknown,
}

/// A joiner, as its opener is notified of it.
#[derive(Deserialize)]
pub(crate) struct Joiner {
    pub(crate) index: u32,
    pub(crate) id: Option<String>,
}

/// A message to the server.
#[derive(Clone, Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub(crate) enum Sent {
    Open {
        #[serde(skip_serializing_if = "Option::is_none")]
        key: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        token: Option<String>,
        id: String,
    },
    Join {
        key: String,
        wait: u32,
        id: String,
    },
    Send {
        #[serde(skip_serializing_if = "Option::is_none")]
        index: Option<u32>,
        data: Value,
    },
    Ping,
}

impl Sent {
    pub(crate) fn to_text(&self) -> String {
        // Fails only for maps whose keys are no strings.
        serde_json::to_string(self).unwrap_or_default()
    }
}
