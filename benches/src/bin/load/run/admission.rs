//! Bringing connections to the point where work can begin.

use sigver_benches::{
    engine::{
        Engine,
        connections::{Connections, Handler},
        event::{ConnId, Event},
    },
    error::Error,
    frame::{self, Opcode},
    payload,
};
use std::time::Duration;

use crate::run::drive::{Work, drive};

/// A connection to be made, and the message that gives it its role.
#[derive(Debug)]
pub(crate) struct Entrant {
    pub(crate) tag: u64,
    pub(crate) role: Vec<u8>,
}

/// Connects all entrants, whose tags must rise, some at a time. The server has handled each one's role when this returns: a ping sent
/// behind it has been answered. It returns only when connections that were there before have got `notices`
/// messages, which are those that tell openers of joiners.
pub(crate) fn admit(engine: &mut Engine, entrants: &[Entrant], notices: usize) -> Result<Vec<ConnId>, Error> {
    let mut work = Admission {
        entrants,
        ids: Vec::with_capacity(entrants.len()),
        admitted: 0,
        notices: 0,
        trouble: None,
    };
    let all = drive(engine, &mut work, ADMISSION, |work, conns| {
        while work.trouble.is_none() && work.ids.len() < entrants.len() && work.ids.len() - work.admitted < AT_ONCE {
            match conns.connect(work.entrants[work.ids.len()].tag) {
                Ok(id) => work.ids.push(id),
                Err(error) => work.trouble = Some(error.into()),
            }
        }
        work.admitted == entrants.len() && work.notices >= notices
    })?;
    if all {
        return Ok(work.ids);
    }
    Err(Error::new(format!(
        "after {} s only {} of {} connections are in, and {} of {notices} joins are announced",
        ADMISSION.as_secs(),
        work.admitted,
        entrants.len(),
        work.notices
    )))
}

/// Pairs whose opener has the tag `2 * n`, whose joiner the tag `2 * n + 1`.
#[derive(Debug)]
pub(crate) struct Pairs {
    pub(crate) openers: Vec<ConnId>,
    pub(crate) joiners: Vec<ConnId>,
}

impl Pairs {
    /// Makes pairs, each under a key of its own.
    pub(crate) fn establish(engine: &mut Engine, count: usize) -> Result<Self, Error> {
        let keys = keys(count);
        let openers = admit(engine, &entrants(&keys, 0, payload::open), 0)?;
        let joiners = admit(engine, &entrants(&keys, 1, payload::join), count)?;
        Ok(Self { openers, joiners })
    }
}

/// One entrant for each key, tagged `first_tag`, `first_tag + 2`, ...
pub(crate) fn entrants(keys: &[String], first_tag: u64, role: fn(&str) -> Vec<u8>) -> Vec<Entrant> {
    let tags = (first_tag..).step_by(2);
    let entrant = |(key, tag): (&String, u64)| Entrant { tag, role: role(key) };
    keys.iter().zip(tags).map(entrant).collect()
}

/// Keys that no other run has used: a foreign server may remember.
pub(crate) fn keys(count: usize) -> Vec<String> {
    let run = unique();
    (0..count).map(|number| format!("{run}-{number}")).collect()
}

/// A name for keys that no other run has used.
pub(crate) fn unique() -> String {
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    format!("load-{:x}-{:x}", std::process::id(), now.as_nanos())
}

struct Admission<'a> {
    entrants: &'a [Entrant],
    ids: Vec<ConnId>,
    admitted: usize,
    notices: usize,
    trouble: Option<Error>,
}

impl Handler for Admission<'_> {
    fn on_event(&mut self, conns: &mut Connections, id: ConnId, tag: u64, event: Event<'_>) {
        match event {
            Event::Upgraded => {
                // Tags rise along the list.
                let place = self.entrants.binary_search_by_key(&tag, |entrant| entrant.tag);
                let Ok(place) = place else {
                    return;
                };
                let entrant = &self.entrants[place];
                let mut frames = frame::client_text(&entrant.role);
                frame::push_client_frame(&mut frames, Opcode::Ping, b"");
                conns.send(id, &frames);
            }
            Event::Pong(_) => self.admitted += 1,
            Event::Message(_) => self.notices += 1,
            Event::Close(code) => self.trouble = Some(closed(code)),
            Event::Ended(ending) => {
                // The close frame, if one came, says more.
                let ended = || Error::new(format!("a connection was not let in: {ending:?}"));
                self.trouble.get_or_insert_with(ended);
            }
            Event::Drained => {}
        }
    }
}

impl Work for Admission<'_> {
    fn trouble(&mut self) -> Option<Error> {
        self.trouble.take()
    }
}

/// The error of a server that ends what should have gone on.
pub(crate) fn closed(code: Option<u16>) -> Error {
    let code = code.map_or_else(|| "no code".to_owned(), |code| code.to_string());
    Error::new(format!("the server closed a connection with {code}"))
}

/// Well below the backlog of any listener.
const AT_ONCE: usize = 64;

const ADMISSION: Duration = Duration::from_secs(120);
