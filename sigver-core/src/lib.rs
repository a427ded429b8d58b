//! WebRTC signaling as a sans-IO state machine.
//!
//! Two browsers that want a direct connection must first pass each other an offer, an answer and some ICE candidates. One
//! side, the **opener**, opens a key; any number of **joiners** join it; messages then go between the opener and each of its
//! joiners, and nowhere else, until the peers talk directly. This crate owns that state and nothing more: it has no socket,
//! thread, clock, source of randomness, logger or global, so that it runs inside any server, on any runtime, and in a test.
//!
//! # Run loop
//!
//! ```text
//!   your sockets ──text──> Dialect::decode ──InboundMessage──> ┐
//!                                                              │ Hub::handle
//!   your sockets <──text── Dialect::encode <─OutboundMessage── ┘
//! ```
//!
//! Every call into the [`Hub`] returns all that follows from it, as `(ConnId, OutboundMessage)` pairs in the order in which
//! they are to be sent. There is nothing to poll afterwards and no order of calls to get wrong.
//!
//! ```
//! use sigver_core::{CloseReason, Dialect, Encoded, Hub, Limits, Time};
//!
//! let limits = Limits::default();
//! let mut hub = Hub::new(limits.clone());
//! let start = Time::ZERO; // time since any epoch of yours
//! let dialect = Dialect::Plain; // what the connection has negotiated
//!
//! let alice = hub.connect(start, dialect.profile())?; // a connection came in
//! let bob = hub.connect(start, dialect.profile())?;
//!
//! // What goes out for a frame that came in; `None` as a text is a close.
//! let mut play = |from, text: &str| -> Result<Vec<_>, CloseReason> {
//!     let no_key = || None; // where random bits come from, when a client wants a key made
//!     let message = dialect.decode(text, &limits, no_key)?;
//!     let mut sent = Vec::new();
//!     for (to, message) in hub.handle(from, message) {
//!         let mut frame = String::new();
//!         match dialect.encode(&message, &mut frame) {
//!             Encoded::Text => sent.push((to, Some(frame))),
//!             Encoded::Close(_) => sent.push((to, None)),
//!             Encoded::Nothing => {} // the plain protocol does not acknowledge
//!         }
//!     }
//!     Ok(sent)
//! };
//!
//! assert_eq!(play(alice, r#"{"type":"open","key":"tea"}"#)?, []);
//! assert_eq!(play(bob, r#"{"type":"join","key":"tea"}"#)?, [(alice, Some(r#"{"type":"join"}"#.into()))]);
//! assert_eq!(play(bob, r#"{"type":"offer"}"#)?, [(alice, Some(r#"{"type":"offer","index":0}"#.into()))]);
//! assert_eq!(play(alice, r#"{"index":0,"ok":1}"#)?, [(bob, Some(r#"{"index":0,"ok":1}"#.into()))]);
//!
//! // The opener is gone: its joiners are closed, and the key is free.
//! let outputs = hub.disconnect(alice);
//! assert!(matches!(outputs[..], [(to, sigver_core::OutboundMessage::Close(CloseReason::OpenerLeft))] if to == bob));
//! # Ok::<(), Box<dyn core::error::Error>>(())
//! ```
//!
//! # Four kinds of method
//!
//! - **In from the network**: [`Hub::connect`], [`Hub::handle`], [`Hub::disconnect`] (the connection is gone).
//! - **In from the embedder**: [`Hub::close`] (you end a connection: malformed, too big, too slow), [`Hub::deny`] (it has guessed at
//!   keys too often), [`Hub::shutdown`].
//! - **Time**: [`Hub::poll_timeout`] says when to call [`Hub::handle_timeout`]. Calling it early is harmless.
//! - **Getters**: [`Hub::role`], [`Hub::stats`], [`Hub::limits`].
//!
//! # Time
//!
//! The hub has one kind of deadline, [`Limits::role_deadline`], and no clock. You say what time it is when a connection comes, sleep until
//! [`Hub::poll_timeout`] at most, and then call [`Hub::handle_timeout`]. Everything else that takes time is yours: pings, handshakes, how
//! long a closed connection may linger.
//!
//! ```
//! use core::time::Duration;
//! use sigver_core::{CloseReason, Dialect, Hub, Limits, OutboundMessage, Time};
//!
//! let mut hub: Hub = Hub::new(Limits::default());
//! let at = |seconds| Time::since_epoch(Duration::from_secs(seconds));
//!
//! let idle = hub.connect(at(5), Dialect::V1.profile())?;
//! assert_eq!(hub.poll_timeout(), Some(at(65))); // it has a minute to ask for a role
//! assert!(hub.handle_timeout(at(64)).is_empty()); // early is harmless
//! let outputs = hub.handle_timeout(at(65));
//! assert!(matches!(outputs[..], [(to, OutboundMessage::Close(CloseReason::NoRoleInTime))] if to == idle));
//! assert_eq!(hub.poll_timeout(), None); // nothing to wait for: sleep until a connection comes
//! # Ok::<(), sigver_core::ConnectError>(())
//! ```
//!
//! # Limits
//!
//! [`Limits`] bounds what a peer can make the hub and the codecs do: connections, joiners of a key, bytes of a key and of a message, depth. Each
//! has a default, and says what it costs and what a peer sees that meets it. How much a peer sends in a second, and how much waits for one that
//! does not read, is known to its embedder alone, who ends it with [`Hub::close`] and [`CloseReason::TooSlow`], say.
//!
//! # Dialects
//!
//! A connection speaks one of two, [`Dialect::Plain`] or [`Dialect::V1`]. The hub knows neither: it is told a [`Profile`], and says
//! everything that there is to say; the dialect has words for it or not. So both meet under one key. For a protocol of your own, make
//! [`InboundMessage`]s and choose a `P`: the example `embed_custom` has neither JSON nor text.
//!
//! # What holds
//!
//! These laws are tested by name in `tests/laws.rs`, `tests/laws_of_endpoint.rs` and `tests/laws_of_texts.rs`, against a naive model:
//!
//! - Data that is accepted is delivered exactly once, to exactly one connection, or dropped because its addressee is gone.
//!   Payloads are moved, never copied: `P` needs no `Clone`, `Debug` or `Default`.
//! - From one sender to one recipient: first in, first out.
//! - Connections of different keys never affect each other, but for the global limits.
//! - A [`CloseReason`] is the last word to its connection: the id is dead when it is returned.
//! - A dead [`ConnId`] is inert in every method: nothing happens and nothing is returned. A frame that races a close is normal.
//! - When every connection is gone, nothing is left.
//! - The same calls give the same outputs: nothing depends on a hash seed, an address or a clock.
//!
//! # Errors and panics
//!
//! Whatever a peer does wrong is a value, a [`CloseReason`] or a [`Refusal`], and harms that peer alone. A panic in this crate is a bug.
//!
//! # Memory
//!
//! A connection costs the [`Hub`] about 100 bytes, plus its key when it is an opener (at most
//! [`Limits::key_bytes`], 256 by default), plus about 20 bytes in the opener's table when it is a joiner. No payload is ever kept.

#![no_std]
#![forbid(unsafe_code)]
#![warn(clippy::wildcard_enum_match_arm)]

extern crate alloc;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

mod arena;
mod endpoint;
mod hub;
mod id;
mod limits;
mod message;
mod profile;
mod reason;
mod stats;
mod time;
mod wire;

pub use endpoint::{
    Counters, Endpoint, EndpointConfig, Frame, Input, Output, Pairing, PairingStage, Phase, Refused, Source, Traffic,
};
pub use hub::{Hub, Role};
pub use id::{ConnId, Index, Key};
pub use limits::Limits;
pub use message::{Addressee, InboundMessage, OutboundMessage, Shape};
pub use profile::{Profile, Tenure};
pub use reason::{CloseReason, ConnectError, Member, Refusal, RoleEnd};
pub use stats::Stats;
pub use time::Time;
pub use wire::{Dialect, Encoded, InvalidSubprotocol, Payload};
