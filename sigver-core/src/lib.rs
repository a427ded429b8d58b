//! WebRTC signaling as a sans-IO state machine.
//!
//! Two browsers that want a direct connection must first exchange an offer, an answer and some ICE candidates. One side, the **opener**, opens
//! a key; any number of **joiners** join it. Messages go between the opener and each of its joiners until the peers are connected directly.
//!
//! The crate has no sockets, threads, clock, random numbers, logging or global state. It runs in any server, on any runtime, and in tests. It
//! has two layers:
//!
//! - [`Endpoint`] is a whole signaling server without its sockets: dialects, keep-alive, rate limits, write buffers, the close handshake,
//!   graceful shutdown and counters. Start here.
//! - [`Hub`] is the protocol alone: openers, joiners and their keys. Use it for messages or policies of your own.
//!
//! # A server with `Endpoint`
//!
//! A driver is the code between the endpoint and the sockets. It has five duties:
//!
//! | event | call |
//! |---|---|
//! | WebSocket handshake | [`Dialect::parse_offers`], [`Dialect::negotiate`], [`Endpoint::connect`] |
//! | message, ping, pong, close frame, protocol error, end of the socket | [`Endpoint::handle`] |
//! | frame passed to the kernel | [`Endpoint::written`] with [`Frame::cost`] |
//! | [`Endpoint::poll_timeout`] is due | [`Endpoint::handle_timeout`] |
//! | shutdown | [`Endpoint::drain`], until [`Endpoint::is_finished`] |
//!
//! Calls return [`Output`]s, which the driver carries out in their order. **Queue the outputs under the same lock as the call that returned
//! them.** If one thread releases the lock before it queues its outputs, another thread can call the endpoint and queue later outputs first, and
//! messages change their order.
//!
//! ```
//! use std::{collections::BTreeMap, net::IpAddr, sync::{Mutex, mpsc}, time::Instant};
//!
//! use sigver_core::{
//!     CloseReason, ConnId, ConnectError, Dialect, Endpoint, EndpointConfig, Frame, Input, Output, Time,
//! };
//!
//! struct Server {
//!     shared: Mutex<Shared>,
//!     started: Instant,
//! }
//!
//! struct Shared {
//!     endpoint: Endpoint,
//!     queues: BTreeMap<ConnId, mpsc::Sender<Output>>, // one for each connection
//! }
//!
//! impl Server {
//!     fn now(&self) -> Time {
//!         Time::from_duration(self.started.elapsed())
//!     }
//!
//!     /// Accepts a client. If this fails, answer the handshake with HTTP 503.
//!     fn connect(&self, dialect: Dialect, client: IpAddr) -> Result<(ConnId, mpsc::Receiver<Output>), ConnectError> {
//!         let Shared { endpoint, queues } = &mut *self.shared.lock().unwrap();
//!         let id = endpoint.connect(self.now(), dialect, client)?;
//!         let (queue, outputs) = mpsc::channel();
//!         queues.insert(id, queue);
//!         Ok((id, outputs))
//!     }
//!
//!     /// Calls the endpoint and queues the outputs, under one lock.
//!     fn call(&self, call: impl FnOnce(&mut Endpoint, Time) -> Vec<(ConnId, Output)>) {
//!         let Shared { endpoint, queues } = &mut *self.shared.lock().unwrap();
//!         for (id, output) in call(endpoint, self.now()) {
//!             if let Some(queue) = queues.get(&id) {
//!                 let _ = queue.send(output); // fails if the socket is gone
//!             }
//!         }
//!     }
//!
//!     /// Reports an event on a socket. `Input::Disconnected` is the last one.
//!     fn handle(&self, id: ConnId, input: Input<'_>) {
//!         let is_last = matches!(input, Input::Disconnected);
//!         self.call(|endpoint, now| endpoint.handle(now, id, input));
//!         if is_last {
//!             self.shared.lock().unwrap().queues.remove(&id);
//!         }
//!     }
//!
//!     /// Calls the endpoint when a timeout is due. Returns when to call again; other calls may change that.
//!     fn handle_timeout(&self) -> Option<Time> {
//!         self.call(|endpoint, now| endpoint.handle_timeout(now));
//!         self.shared.lock().unwrap().endpoint.poll_timeout()
//!     }
//!
//!     /// Carries out the outputs of a connection on a thread of its own.
//!     fn write(&self, id: ConnId, outputs: mpsc::Receiver<Output>, mut send: impl FnMut(&Frame)) {
//!         for output in outputs {
//!             match output {
//!                 Output::Send(frame) => {
//!                     send(&frame);
//!                     self.call(|endpoint, now| endpoint.written(now, id, frame.cost()));
//!                 }
//!                 Output::PauseReading(_) => {} // the reading thread sleeps until then
//!                 Output::StopReading => {}     // the reading thread waits
//!                 Output::ResumeReading => {}   // and is woken up
//!                 Output::Abort => return,      // shut the socket down
//!                 _ => {}
//!             }
//!         }
//!     }
//! }
//!
//! let server = Server {
//!     shared: Mutex::new(Shared {
//!         endpoint: Endpoint::new(EndpointConfig::default(), || None), // random bits, for generated keys and tokens
//!         queues: BTreeMap::new(),
//!     }),
//!     started: Instant::now(),
//! };
//! let ip = "192.0.2.1".parse()?;
//! let (alice, to_alice) = server.connect(Dialect::Plain, ip)?;
//! let (bob, to_bob) = server.connect(Dialect::Plain, ip)?;
//! server.handle(alice, Input::Text(r#"{"type":"open","key":"tea"}"#));
//! server.handle(bob, Input::Text(r#"{"type":"join","key":"tea"}"#));
//! server.handle(bob, Input::Text(r#"{"type":"offer"}"#));
//! assert!(server.handle_timeout().is_some()); // pings are due in 25 seconds
//! server.handle(alice, Input::Disconnected);
//!
//! let mut sent = Vec::new();
//! server.write(alice, to_alice, |frame| sent.push(frame.clone()));
//! let [Frame::Text(join), Frame::Text(offer)] = &sent[..] else { panic!("{sent:?}") };
//! assert_eq!([join, offer], [r#"{"type":"join"}"#, r#"{"type":"offer","index":0}"#]);
//! assert!(to_bob.try_iter().any(|output| matches!(output, Output::Send(Frame::Close(CloseReason::OpenerLeft)))));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Whole servers in the repository: `examples/embed_axum.rs` with axum, `examples/embed_tokio.rs` with tokio, and `examples/embed_mio` with one
//! thread.
//!
//! # The protocol with `Hub`
//!
//! ```text
//!   your sockets ──text──> Decoder::decode ──InboundMessage──> ┐
//!                                                              │ Hub::handle
//!   your sockets <─frame── Dialect::encode <─OutboundMessage── ┘
//! ```
//!
//! Every call to the [`Hub`] returns all its outputs as `(ConnId, OutboundMessage)` pairs, in the order in which they must be sent. There is
//! nothing to poll afterwards.
//!
//! ```
//! use sigver_core::{CloseReason, Decoder, Dialect, Disconnect, Frame, Hub, Limits, OutboundMessage, Time};
//!
//! let limits = Limits::default();
//! let mut hub = Hub::new(limits.clone());
//! let start = Time::ZERO; // since any epoch
//! let dialect = Dialect::V1; // negotiated in the handshake
//! let decoder = Decoder::new(dialect, &limits);
//!
//! let alice = hub.connect(start, dialect.profile())?; // a connection came in
//! let bob = hub.connect(start, dialect.profile())?;
//!
//! // Returns what to send after a text arrived.
//! let mut receive = |from, text: &str| -> Result<Vec<_>, CloseReason> {
//!     let outputs = hub.handle(start, from, decoder.decode(text)?);
//!     let frames = outputs.into_iter().filter_map(|(to, message)| Some((to, dialect.encode(message)?)));
//!     Ok(frames.collect())
//! };
//! let text = |text: &str| Frame::Text(text.into());
//!
//! let sent = receive(alice, r#"{"type":"open","key":"tea"}"#)?;
//! assert_eq!(sent, [(alice, text(r#"{"type":"opened","key":"tea"}"#))]);
//! let sent = receive(bob, r#"{"type":"join","key":"tea"}"#)?;
//! assert_eq!(sent, [(bob, text(r#"{"type":"joined","index":0}"#)), (alice, text(r#"{"type":"join","index":0}"#))]);
//! let sent = receive(bob, r#"{"type":"send","data":{"offer":1}}"#)?;
//! assert_eq!(sent, [(alice, text(r#"{"type":"data","index":0,"data":{"offer":1}}"#))]);
//!
//! // The opener disconnects: the role of its joiners ends and the key is free.
//! let outputs = hub.disconnect(start, alice, Disconnect::Clean);
//! assert!(matches!(outputs[..], [(to, OutboundMessage::RoleEnded(_))] if to == bob));
//! # Ok::<(), Box<dyn core::error::Error>>(())
//! ```
//!
//! ## Methods
//!
//! - **Events of the network**: [`Hub::connect`], [`Hub::handle`], [`Hub::disconnect`] (the connection is gone).
//! - **Decisions of the embedder**: [`Hub::close`] (a malformed message or a slow consumer, for example), [`Hub::refuse_request`]
//!   (too many attempts at keys), [`Hub::shutdown`].
//! - **Time**: [`Hub::poll_timeout`] returns when to call [`Hub::handle_timeout`]. Early calls are harmless.
//! - **Without an allocation per call**: [`Hub::handle_into`], [`Hub::close_into`].
//! - **Getters**: [`Hub::role`], [`Hub::stats`], [`Hub::limits`].
//!
//! ## Time
//!
//! The hub has no clock, and three kinds of deadlines: [`Limits::role_deadline`], the end of a join's wait for its key, and the end of a
//! reservation ([`Limits::reserve`]). Pass the time with
//! each call, sleep until [`Hub::poll_timeout`] at most, and call [`Hub::handle_timeout`]. Keep-alive and close time-outs are the [`Endpoint`]'s; the handshake is
//! the driver's.
//!
//! ```
//! use core::time::Duration;
//! use sigver_core::{CloseReason, Dialect, Hub, Limits, OutboundMessage, Time};
//!
//! let mut hub = Hub::new(Limits::default());
//! let at = |seconds| Time::from_duration(Duration::from_secs(seconds));
//!
//! let idle = hub.connect(at(5), Dialect::V1.profile())?;
//! assert_eq!(hub.poll_timeout(), Some(at(65))); // a minute to request a role
//! assert!(hub.handle_timeout(at(64)).is_empty()); // early is harmless
//! let outputs = hub.handle_timeout(at(65));
//! assert!(matches!(outputs[..], [(to, OutboundMessage::Close(CloseReason::NoRoleInTime))] if to == idle));
//! assert_eq!(hub.poll_timeout(), None); // sleep until a connection is accepted
//! # Ok::<(), sigver_core::ConnectError>(())
//! ```
//!
//! # Limits
//!
//! [`Limits`] applies to the hub and the codecs: connections, joiners per key, key size, message size, nesting depth. Each limit documents its
//! default, its cost and its effect on the client. [`EndpointConfig`] adds rate limits and the size of the write buffers. Embedders that use
//! the [`Hub`] alone enforce such limits themselves, with [`Hub::close`].
//!
//! # Dialects
//!
//! A connection uses one of two dialects, [`Dialect::Plain`] or [`Dialect::V1`]. The hub knows only the [`Profile`] of a connection and
//! returns every message; [`Dialect::encode`] drops those that the dialect lacks. Therefore clients of both dialects can use one key. For a
//! protocol of your own, create [`InboundMessage`]s and choose a `P`: the example `embed_custom` has neither JSON nor text.
//!
//! # Guarantees
//!
//! Property tests check these laws against simple models, in `tests/laws`:
//!
//! - Accepted data is delivered exactly once, to exactly one connection, or dropped because its addressee is gone.
//!   The hub moves payloads and never copies them: `P` needs no `Clone`, `Debug` or `Default`.
//! - From one sender to one recipient: first in, first out.
//! - Connections of different keys never affect each other, except through the global limits.
//! - A [`CloseReason`] is the last message to its connection. After it is returned, the [`ConnId`] is no longer valid.
//! - Calls with a [`ConnId`] that is no longer valid do nothing and return nothing, so a message may race a close.
//! - When every connection is gone, all state is freed; that of [reserved keys](Limits::reserve) when their time is over.
//! - The same calls give the same outputs: nothing depends on a hash seed, an address or a clock.
//!
//! # Errors and panics
//!
//! Every error of a client is a value, a [`CloseReason`] or a [`Refusal`], and affects that client alone. A panic in this crate is a bug.
//!
//! # Memory
//!
//! A connection costs the [`Hub`] about 100 bytes, plus its key if it is an opener (at most [`Limits::key_bytes`], 256 by default) and its id
//! (at most 64), plus about 20 bytes in the opener's table if it is a joiner, or about 400 while it waits for a key. The [`Endpoint`] adds
//! about 200 bytes per connection. A reserved key costs about 300 bytes plus the key. Payloads are not kept.

#![no_std]
#![forbid(unsafe_code)]
#![warn(clippy::wildcard_enum_match_arm)]

extern crate alloc;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

mod arena;
#[cfg(feature = "json")]
mod endpoint;
mod frame;
mod hub;
mod ice;
mod id;
mod limits;
mod message;
#[cfg_attr(not(feature = "json"), expect(dead_code, reason = "only the codecs make payloads"))]
mod payload;
mod profile;
mod reason;
mod stats;
mod time;
mod token;
#[cfg(feature = "json")]
mod wire;

#[cfg(feature = "json")]
pub use endpoint::{
    Endpoint, Phase,
    activity::{Activity, ConnEnd},
    config::EndpointConfig,
    counters::{Counters, Refused, Traffic},
    io::{Input, Output},
    pairing::{Pairing, PairingStage},
    source_table::Source,
};
pub use frame::Frame;
pub use hub::{Disconnect, Hub, Role};
pub use ice::{IceServer, IceServers};
pub use id::{ConnId, Index, InvalidPeerId, Key, KeyError, PeerId};
pub use limits::Limits;
pub use message::{Addressee, AllowedRoles, InboundMessage, OutboundMessage, PresentJoiner};
pub use payload::Payload;
pub use profile::{PayloadKind, Profile, RoleLifetime};
pub use reason::{CloseReason, ConnectError, Member, Refusal, RoleEnd};
pub use stats::Stats;
pub use time::Time;
pub use token::{InvalidToken, Token};
#[cfg(feature = "json")]
pub use wire::{Decoder, Dialect, offers::InvalidSubprotocol};
