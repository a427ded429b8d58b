//! The server over its sockets, in one program, because linking one is faster than linking fifteen. Tests that count threads, descriptors or
//! memory of their process, or install a logger, are programs of their own beside this folder.

mod support;

mod admission;
mod binary;
mod deadlines;
mod ending;
mod faults;
mod frames;
mod handshakes;
mod house;
mod limits;
mod logs;
mod memory;
mod metrics;
mod systemd;
mod transcripts;
