//! Links sigver-core without the standard library and plays a session through [`Endpoint`]. Exits with 0 if every output is the expected
//! one, and with the number of the failed step otherwise.
//!
//! A `no_std` attribute does not prove that a crate works without `std`: a dependency can link it. A program with its own panic handler and
//! allocator does, because with `std` there would be two.

#![no_std]
#![no_main]

extern crate alloc;

mod bump;

use alloc::{format, string::String, vec::Vec};
use core::{
    net::{IpAddr, Ipv4Addr},
    panic::PanicInfo,
};

use bump::BumpAllocator;
use sigver_core::{ConnId, Dialect, Endpoint, EndpointConfig, Frame, Input, Output, Time};

#[global_allocator]
static ALLOCATOR: BumpAllocator = BumpAllocator::new();

/// The exit status after a panic.
const PANICKED: i32 = 101;

/// The entry point: called by libc, or the start of a target without an operating system.
#[cfg_attr(target_os = "none", unsafe(export_name = "_start"))]
#[cfg_attr(not(target_os = "none"), unsafe(no_mangle))]
extern "C" fn main() -> i32 {
    match session() {
        Ok(()) => 0,
        Err(step) => step,
    }
}

/// A client opens a key, another joins it, they exchange an offer and an answer, and the opener disconnects.
fn session() -> Result<(), i32> {
    let client = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let mut endpoint = Endpoint::new(EndpointConfig::default(), || Some(7));
    let opener = endpoint.connect(Time::ZERO, Dialect::V1, client).map_err(|_| 1)?;
    let joiner = endpoint.connect(Time::ZERO, Dialect::Plain, client).map_err(|_| 2)?;
    let mut play = |step, from, input: Input<'_>, expected: &[(ConnId, &str)]| {
        let outputs = endpoint.handle(Time::ZERO, from, input);
        let sent: Vec<_> = outputs.iter().filter_map(text).collect();
        let is_expected = sent.len() == expected.len()
            && sent
                .iter()
                .zip(expected)
                .all(|((to, text), (id, expected))| to == id && text == expected);
        if is_expected { Ok(()) } else { Err(step) }
    };
    play(
        3,
        opener,
        Input::Text(r#"{"type":"open","key":"tea"}"#),
        &[(
            opener,
            r#"{"type":"opened","key":"tea","token":"00000000000000000000000000000007"}"#,
        )],
    )?;
    play(
        4,
        joiner,
        Input::Text(r#"{"type":"join","key":"tea"}"#),
        &[(opener, r#"{"type":"join","index":0}"#)],
    )?;
    play(
        5,
        joiner,
        Input::Text(r#"{"type":"offer","sdp":"v=0"}"#),
        &[(
            opener,
            r#"{"type":"data","index":0,"data":{"type":"offer","sdp":"v=0"}}"#,
        )],
    )?;
    play(
        6,
        opener,
        Input::Text(r#"{"type":"send","index":0,"data":{"type":"answer"}}"#),
        &[(joiner, r#"{"type":"answer"}"#)],
    )?;
    play(7, opener, Input::Disconnected, &[(joiner, "close 4001 opener left")])
}

/// A sent frame as text; `None` for outputs that send nothing.
fn text((to, output): &(ConnId, Output)) -> Option<(ConnId, String)> {
    match output {
        Output::Send(Frame::Text(text)) => Some((*to, text.clone())),
        Output::Send(Frame::Close(reason)) => Some((*to, format!("close {} {}", reason.code(), reason))),
        _ => None,
    }
}

#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    exit(PANICKED)
}

#[cfg(not(target_os = "none"))]
fn exit(status: i32) -> ! {
    unsafe extern "C" {
        safe fn exit(status: i32) -> !;
    }
    exit(status)
}

#[cfg(target_os = "none")]
fn exit(_: i32) -> ! {
    loop {
        core::hint::spin_loop();
    }
}

// Start-up code, `exit` and `memcpy`.
#[cfg(not(target_os = "none"))]
#[link(name = "c")]
unsafe extern "C" {}
