//! The parts that the load generator and the yardstick share.
//!
//! - [`engine`]: a WebSocket client for many connections on one thread.
//! - [`frame`]: encodes and decodes WebSocket frames.
//! - [`payload`]: the messages that clients send.
//! - [`delivery`]: checks that they arrive.
//!
//! The programs are `load`, the load generator, and `yardstick`, a bare relay that every result is divided by.
//! `README.md` describes how to run them and how to read the results.

#![forbid(unsafe_code)]

pub mod delivery;
pub mod engine;
pub mod error;
pub mod frame;
pub mod limits;
pub mod payload;
