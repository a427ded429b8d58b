//! Plays every transcript against the server, over sockets.

use std::{thread, time::Duration};

use sigver_server::{Config, Server};
use sigver_transcripts::{Limit, Transcript, all, play, socket::Sockets};

/// Short, since the transcripts that wait for it wait in real time; long enough for the others to take a role.
const ROLE_DEADLINE: Duration = Duration::from_millis(500);

#[test]
fn the_server_plays_every_transcript() -> Result<(), Box<dyn std::error::Error>> {
    let transcripts = all()?;
    assert!(
        transcripts.len() >= 3,
        "only {} transcripts were found",
        transcripts.len()
    );
    for transcript in &transcripts {
        run(transcript)?;
    }
    Ok(())
}

fn run(transcript: &Transcript) -> Result<(), Box<dyn std::error::Error>> {
    let waits = transcript.steps.iter().any(|step| step.kind.who().is_none());
    let mut config = Config::default();
    config.listen = vec!["127.0.0.1:0".parse()?];
    config.endpoint.limits.role_deadline = waits.then_some(ROLE_DEADLINE);
    for (limit, value) in &transcript.limits {
        match limit {
            Limit::Depth => config.endpoint.limits.depth = *value,
            Limit::JoinersPerKey => config.endpoint.limits.joiners_per_key = *value,
            Limit::KeyBytes => config.endpoint.limits.key_bytes = *value,
            Limit::MessageBytes => config.endpoint.limits.message_bytes = *value,
        }
    }
    let server = Server::bind(config)?;
    let (addr, handle) = (server.local_addr(), server.handle());
    let running = thread::spawn(move || server.run());
    let outcome = play(transcript, &mut Sockets::new(addr, ROLE_DEADLINE));
    handle.shutdown();
    running.join().map_err(|_| "the server has panicked")??;
    Ok(outcome?)
}
