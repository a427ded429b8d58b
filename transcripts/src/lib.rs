//! Reads the transcripts beside it and plays them against anything that speaks sigver's protocol.
//!
//! A transcript is a text file with one scenario. It is documentation that runs: the same files are played against
//! `sigver_core::Endpoint`, against the server over sockets, and against any other server. They are
//! played against a [`Stage`], which may fail: [`socket::Sockets`] for a server, [`endpoint::InMemory`] for the core alone.
//!
//! # Format
//!
//! One step a line. Blank lines mean nothing; lines that start with `#` are for the reader, and the first of them are the title.
//! A capital letter is a client, which connects when it is first named; it offers no subprotocol, but where its first line says so.
//!
//! | line | meaning |
//! |---|---|
//! | `A > TEXT` | A sends a text frame: the rest of the line, to the byte |
//! | `A >hex 7b7d` | A sends a text frame with these bytes |
//! | `A >repeat 1000 [` | A sends a text frame of the text, so many times over |
//! | `A >pieces TEXT\|TEXT` | A sends one text message in a frame for each piece, and a ping after each |
//! | `A >binary 00ff` | A sends a binary frame |
//! | `A >raw 8100` | A sends these bytes, as they are, on its connection |
//! | `A < TEXT`, `A <hex 7b7d` | the next text frame that A receives is this one, to the byte |
//! | `A ! 1008 key is taken` | next, A is closed with this code and text |
//! | `A <made {"key":"*"}` | the same, with a key that the server made in place of `*` |
//! | `A >made {"key":"*"}` | A sends a text frame with that key in place of `*` |
//! | `A connects` | A connects, and says nothing yet |
//! | `A speaks sigver.v1` | A connects, offering this subprotocol |
//! | `A closes 1000`, `A closes` | A sends a close frame with this code, or none, and gets the same back |
//! | `A vanishes` | A's connection ends without a close frame |
//! | `wait role-deadline` | time passes until the role deadline |
//! | `section HEADING` | before the first step: the section of PROTOCOL.md that this shows |
//! | `set LIMIT NUMBER` | before the first step: this limit is other than the default |
//!
//! At the end no client may have received anything else, and every client that was not closed must still be connected.
//!
//! What is the same is for the stage to say ([`Stage::is_same`]). Our own server and core are compared to the byte, the texts of close
//! frames included; `examples/conformance` compares of other servers what PROTOCOL.md holds them to.

pub mod endpoint;
mod frames;
pub mod kit;
pub mod modules;
mod parse;
mod play;
pub mod socket;

pub use parse::{Frame, Limit, Step, StepKind, Transcript, Unreadable};
pub use play::{Failure, Seen, Stage, play};

use std::{fs, io, path::Path};

/// Every transcript of this folder, by name.
///
/// # Errors
///
/// When a file cannot be read, or is not a transcript.
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
