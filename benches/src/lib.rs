//! What proves speed: the parts that the load generator and the yardstick share.
//!
//! The programs are `load` (the generator, one file per mode) and `yardstick` (the bare relay that every figure is
//! divided by). `README.md` beside this file tells how to run them and how to read what they print.
//!
//! This library owns the client side of the wire ([`engine`]), the frame layout that both programs need
//! ([`frame`]), what is sent ([`payload`]) and whether it arrived ([`check`]). It never measures anything and never
//! starts a process.

#![forbid(unsafe_code)]

pub mod check;
pub mod engine;
pub mod error;
pub mod frame;
pub mod limits;
pub mod payload;
