//! Integration tests over sockets, in one test binary to save link time. Tests that count threads, descriptors or memory of their process,
//! or that install a logger, have a binary of their own next to this folder.

mod support;

mod admission;
mod binary;
mod deadlines;
mod ending;
mod events;
mod faults;
mod frames;
mod handshakes;
mod house;
mod ice;
mod jwt;
mod last_frames;
mod limits;
mod logs;
mod memory;
mod metrics;
mod systemd;
mod transcripts;
mod unix_socket;
