//! Plays every transcript against the server, over sockets.

use std::{thread, time::Duration};

use sigver_server::{Config, Server};
use sigver_transcripts::{Limit, Transcript, all, play, socket::Sockets};

/// Short, since the transcripts that wait for it wait in real time. Some of their clients take a role before, for which a busy machine may
/// be too slow; so a transcript that fails is played again with the next.
const ROLE_DEADLINES: [Duration; 3] = [
    Duration::from_millis(500),
    Duration::from_secs(5),
    Duration::from_secs(30),
];

#[test]
fn the_server_plays_every_transcript() -> Result<(), Box<dyn std::error::Error>> {
    let transcripts = all()?;
    assert!(
        transcripts.len() >= 3,
        "only {} transcripts were found",
        transcripts.len()
    );
    for transcript in &transcripts {
        if transcript.steps.iter().any(|step| step.kind.who().is_none()) {
            let mut outcomes = ROLE_DEADLINES.iter().map(|deadline| run(transcript, Some(*deadline)));
            let first = outcomes.next().expect("there are some");
            first.or_else(|error| outcomes.find(Result::is_ok).unwrap_or(Err(error)))?;
        } else {
            run(transcript, None)?;
        }
    }
    Ok(())
}

fn run(transcript: &Transcript, role_deadline: Option<Duration>) -> Result<(), Box<dyn std::error::Error>> {
    let mut config = Config::default();
    config.listen = vec!["127.0.0.1:0".parse()?];
    config.endpoint.limits.role_deadline = role_deadline;
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
    let outcome = play(transcript, &mut Sockets::new(addr, role_deadline.unwrap_or_default()));
    handle.shutdown();
    running.join().map_err(|_| "the server has panicked")??;
    Ok(outcome?)
}
