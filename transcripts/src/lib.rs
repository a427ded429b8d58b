//! Parses transcripts of the sigver protocol and plays them against a server or against the core.
//!
//! A transcript is a text file with one scenario. It documents the protocol and tests it: the same files are played against
//! `sigver_core::Endpoint`, against the server over sockets, and against servers of other projects. The subject under test implements
//! [`Stage`]: [`socket::Sockets`] is a server, [`endpoint::InMemory`] the core alone.
//!
//! # Format
//!
//! Each line is one step. Blank lines are ignored. Lines that start with `#` are comments; those at the top are the title.
//! A capital letter names a client. It connects in its first step, and offers no subprotocol unless this step is `speaks`.
//!
//! | line | meaning |
//! |---|---|
//! | `A > TEXT` | A sends a text frame with the rest of the line, byte for byte |
//! | `A >hex 7b7d` | A sends a text frame with these bytes |
//! | `A >repeat 1000 [` | A sends a text frame with the text repeated this many times |
//! | `A >pieces TEXT\|TEXT` | A sends one text message in fragments, with a ping after each fragment |
//! | `A >binary 00ff` | A sends a binary frame |
//! | `A >raw 8100` | A sends these bytes unchanged on its connection |
//! | `A < TEXT`, `A <hex 7b7d` | the next frame that A receives is this text frame, byte for byte |
//! | `A ! 1008 key is taken` | the next frame that A receives is a close frame with this code and text |
//! | `A <made {"key":"$K"}` | the next text frame that A receives is this one, with a string that the server made in place of `$K`: 32 hexadecimal digits. From then on, `$K` is this string. `$_` is any such string |
//! | `A >made {"key":"$K"}` | A sends a text frame with that string in place of `$K` |
//! | `A connects` | A connects and sends nothing |
//! | `A speaks sigver.v1` | A connects and offers this subprotocol |
//! | `A closes 1000`, `A closes` | A sends a close frame with this code, or without a code, and receives the same in reply |
//! | `A vanishes` | A disconnects without a close frame |
//! | `wait role-deadline`, `wait 2 s` | the role deadline or this time passes |
//! | `section HEADING` | before the first step: the section of PROTOCOL.md that this scenario illustrates |
//! | `set LIMIT NUMBER` | before the first step: the server has this limit in place of the default |
//!
//! At the end, no client may have received any other frame, and every client that was not closed must still be connected.
//!
//! [`Stage::is_same`] compares the expected and the received frames. For our own server and core, frames must be equal byte for byte,
//! including the texts of close frames. `examples/conformance` compares only what PROTOCOL.md requires of any server.

pub mod endpoint;
mod frames;
pub mod kit;
pub mod modules;
mod parse;
mod play;
pub mod socket;

pub use parse::{Frame, Limit, ParseError, Step, StepKind, Transcript, Wait};
pub use play::{Failure, Seen, Stage, play};

use std::{fs, io, path::Path};

/// Returns every transcript of this crate, sorted by name.
///
/// # Errors
///
/// If a file cannot be read, or is not a transcript.
pub fn all() -> io::Result<Vec<Transcript>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut transcripts = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "txt") {
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            let transcript = Transcript::parse(&name, &fs::read_to_string(&path)?)
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, format!("{}: {error}", path.display())))?;
            transcripts.push(transcript);
        }
    }
    transcripts.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(transcripts)
}
