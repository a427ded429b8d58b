//! Plays every transcript against [`Endpoint`](sigver_core::Endpoint), in virtual time.

use std::error::Error;

use sigver_core::Phase;
use sigver_transcripts::{
    all,
    endpoint::{InMemory, config},
    play,
};

#[test]
fn endpoint_plays_every_transcript_and_keeps_no_socket() -> Result<(), Box<dyn Error>> {
    let mut played = 0;
    for transcript in all()? {
        let mut stage = InMemory::new(config(&transcript));
        play(&transcript, &mut stage)?;
        played += 1;

        stage.close_all()?;
        let endpoint = stage.endpoint();
        let is_empty = endpoint.sockets() == 0 && endpoint.poll_timeout().is_none();
        assert!(is_empty && endpoint.phase() == Phase::Closed, "{}", transcript.name);
    }
    assert!(played >= 60, "only {played} transcripts were found");
    Ok(())
}
