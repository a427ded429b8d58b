//! [`Endpoint`] in virtual time: each behaviour, exact to the millisecond and the byte.
//!
//! `laws/endpoint.rs` compares random calls with a model. The transcripts cover both dialects.

use core::{num::NonZeroU32, time::Duration};
use std::collections::BTreeMap;

use sigver_core::{
    CloseReason, ConnId, ConnectError, Decoder, Dialect, Endpoint, EndpointConfig, Frame, InboundMessage, Input,
    Limits, Output, PairingStage, Phase, Role, Time, Traffic,
};

use crate::server::{Outputs, Server, at};

mod activity;
mod back_pressure;
mod backlog_total;
mod close_handshake;
mod control;
mod counters;
mod decoding;
mod expiry;
mod grace;
mod ice;
mod keep_alive;
mod key_attempts;
mod not_allowed;
mod rate_limit;
mod reserved;
mod role_deadline;
mod shutdown;
mod takeovers;
mod waiting;
mod write_buffer;

use Dialect::{Plain, V1};

const OPEN: &str = r#"{"type":"open","key":"tea"}"#;
const JOIN: &str = r#"{"type":"join","key":"tea"}"#;

fn default() -> Server {
    Server::new(|_| {})
}

/// One frame of each kind after which the connection stays open.
const FRAMES: [fn() -> Input<'static>; 4] = [
    || Input::Text(r#"{"type":"leave"}"#),
    || Input::Ping(b"hi"),
    || Input::Pong,
    || Input::Message {
        message: InboundMessage::Leave,
        text_bytes: 16,
        wire_bytes: 22,
    },
];

/// Every input but [`Input::Disconnected`].
fn inputs() -> impl Iterator<Item = Input<'static>> {
    let message = || Decoder::new(Plain, &Limits::default()).decode(OPEN).expect("a message");
    [
        Input::Text(OPEN),
        Input::Text("{"),
        Input::Message {
            message: message(),
            text_bytes: OPEN.len(),
            wire_bytes: OPEN.len(),
        },
        Input::Binary,
        Input::Ping(b"hi"),
        Input::Pong,
        Input::Close(Some(1000)),
        Input::Violation(CloseReason::BrokenFraming),
    ]
    .into_iter()
}
