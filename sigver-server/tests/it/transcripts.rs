//! The server sends each client the same frames as `Endpoint` alone, in the same order, for every transcript.

use std::{collections::BTreeMap, error::Error, io, thread, time::Duration};

use sigver_server::{Config, Server};
use sigver_transcripts::{
    Frame, Seen, Stage, Step, StepKind, Transcript, Wait, all,
    endpoint::{InMemory, config},
    play,
    socket::Sockets,
};

/// Role deadlines to try in order. Transcripts wait for the deadline in real time, so the first is short; a busy machine may need a longer
/// one.
const ROLE_DEADLINES: [Duration; 3] = [
    Duration::from_millis(500),
    Duration::from_secs(5),
    Duration::from_secs(30),
];

/// What each client has received.
type Received = BTreeMap<char, Vec<Seen>>;

/// A stage that records what its clients receive.
struct Recorder<S> {
    stage: S,
    received: Received,
    /// The strings that the server made.
    made: Vec<String>,
}

impl<S: Stage> Recorder<S> {
    fn new(stage: S) -> Self {
        Self {
            stage,
            received: BTreeMap::new(),
            made: Vec::new(),
        }
    }

    /// Plays a transcript. Returns the frames with `*` in place of the strings that the server made.
    fn play(mut self, transcript: &Transcript) -> Result<Received, Box<dyn Error>> {
        play(transcript, &mut self)?;
        let clients: Vec<char> = self.received.keys().copied().collect();
        for who in clients {
            self.receive_rest(who)?;
        }
        let texts = self.received.values_mut().flatten().filter_map(|seen| match seen {
            Seen::Text(text) => Some(text),
            Seen::Binary(_) | Seen::Close(..) | Seen::Lost | Seen::Nothing => None,
        });
        for text in texts {
            for made in &self.made {
                *text = text.replace(made, "*");
            }
        }
        Ok(self.received)
    }

    /// Receives the remaining frames, until a pong arrives first or the connection ends.
    fn receive_rest(&mut self, who: char) -> io::Result<()> {
        while self.received[&who].last() != Some(&Seen::Lost) && self.stage.leftover(who)? != Seen::Nothing {
            self.receive(who)?;
        }
        Ok(())
    }
}

impl<S: Stage> Stage for Recorder<S> {
    fn connect(&mut self, who: char, subprotocol: Option<&str>) -> io::Result<()> {
        self.received.insert(who, Vec::new());
        self.stage.connect(who, subprotocol)
    }

    fn send(&mut self, who: char, frame: &Frame) -> io::Result<()> {
        self.stage.send(who, frame)
    }

    fn receive(&mut self, who: char) -> io::Result<Seen> {
        let seen = self.stage.receive(who)?;
        self.received.entry(who).or_default().push(seen.clone());
        Ok(seen)
    }

    fn leftover(&mut self, who: char) -> io::Result<Seen> {
        self.stage.leftover(who)
    }

    fn close(&mut self, who: char, code: Option<u16>) -> io::Result<()> {
        self.stage.close(who, code)
    }

    fn vanish(&mut self, who: char) -> io::Result<()> {
        self.stage.vanish(who)
    }

    fn wait(&mut self, time: Wait) -> io::Result<()> {
        self.stage.wait(time)
    }

    fn learn(&mut self, made: &str) {
        self.made.push(made.to_owned());
    }
}

#[test]
fn server_sends_the_same_frames_as_the_endpoint() -> Result<(), Box<dyn Error>> {
    let transcripts = all()?;
    assert!(
        transcripts.len() >= 60,
        "only {} transcripts were found",
        transcripts.len()
    );
    let mut frames = 0;
    for transcript in &transcripts {
        let expected = Recorder::new(InMemory::new(config(transcript))).play(transcript)?;
        assert_eq!(received_from_server(transcript)?, expected, "{}", transcript.name);
        frames += expected.values().map(Vec::len).sum::<usize>();
    }
    assert!(frames >= 300, "only {frames} frames were compared");
    Ok(())
}

fn received_from_server(transcript: &Transcript) -> Result<Received, Box<dyn Error>> {
    let waits = |step: &Step| step.kind == StepKind::Wait(Wait::RoleDeadline);
    if !transcript.steps.iter().any(waits) {
        return play_on_server(transcript, None);
    }
    let mut received = Err("no deadline to try".into());
    for deadline in ROLE_DEADLINES {
        received = play_on_server(transcript, Some(deadline));
        if received.is_ok() {
            break;
        }
    }
    received
}

fn play_on_server(transcript: &Transcript, role_deadline: Option<Duration>) -> Result<Received, Box<dyn Error>> {
    let mut server = Config::default();
    server.listen = vec!["127.0.0.1:0".parse()?];
    server.endpoint = config(transcript);
    server.endpoint.limits.role_deadline = role_deadline;
    server.endpoint.keep_alive = Duration::MAX;
    let server = Server::bind(server)?;
    let (addr, handle) = (server.local_addr().ok_or("no TCP address")?, server.handle());
    let running = thread::spawn(move || server.run());
    let received = Recorder::new(Sockets::new(addr, role_deadline.unwrap_or_default())).play(transcript);
    handle.shutdown();
    running.join().map_err(|_| "the server panicked")??;
    received
}
