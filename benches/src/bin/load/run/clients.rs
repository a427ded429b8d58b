//! Connects clients and gives them their roles.

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

use crate::run::drive::{Workload, drive};

/// A client to connect, and the message that gives it its role.
#[derive(Debug)]
pub(crate) struct ClientSpec {
    pub(crate) tag: u64,
    pub(crate) first_message: Vec<u8>,
}

/// Connects clients, a limited number at a time. Their tags must be ascending.
///
/// When it returns, the server has answered a ping after each client's first message, so each client has its role, and
/// connections have received `notices` messages, which are the join notices of openers.
pub(crate) fn connect_clients(engine: &mut Engine, specs: &[ClientSpec], notices: usize) -> Result<Vec<ConnId>, Error> {
    let mut work = ConnectWorkload {
        specs,
        ids: Vec::with_capacity(specs.len()),
        ready: 0,
        notices: 0,
        error: None,
    };
    let all = drive(engine, &mut work, CONNECT_TIMEOUT, |work, conns| {
        while work.error.is_none()
            && work.ids.len() < specs.len()
            && work.ids.len() - work.ready < MAX_CONCURRENT_CONNECTS
        {
            match conns.connect(work.specs[work.ids.len()].tag) {
                Ok(id) => work.ids.push(id),
                Err(error) => work.error = Some(error.into()),
            }
        }
        work.ready == specs.len() && work.notices >= notices
    })?;
    if all {
        return Ok(work.ids);
    }
    Err(Error::new(format!(
        "only {} of {} clients connected and {} of {notices} join notices received after {} s",
        work.ready,
        specs.len(),
        work.notices,
        CONNECT_TIMEOUT.as_secs()
    )))
}

/// Pairs. Opener `n` has the tag `2 * n`, its joiner the tag `2 * n + 1`.
#[derive(Debug)]
pub(crate) struct Pairs {
    pub(crate) openers: Vec<ConnId>,
    pub(crate) joiners: Vec<ConnId>,
}

impl Pairs {
    /// Connects pairs, each with its own key.
    pub(crate) fn connect(engine: &mut Engine, count: usize) -> Result<Self, Error> {
        let keys = unique_keys(count);
        let openers = connect_clients(engine, &client_specs(&keys, 0, payload::open), 0)?;
        let joiners = connect_clients(engine, &client_specs(&keys, 1, payload::join), count)?;
        Ok(Self { openers, joiners })
    }
}

/// Returns one client for each key, with the tags `first_tag`, `first_tag + 2`, ...
pub(crate) fn client_specs(keys: &[String], first_tag: u64, role: fn(&str) -> Vec<u8>) -> Vec<ClientSpec> {
    let tags = (first_tag..).step_by(2);
    let client = |(key, tag): (&String, u64)| ClientSpec {
        tag,
        first_message: role(key),
    };
    keys.iter().zip(tags).map(client).collect()
}

/// Returns keys that no other run has used.
pub(crate) fn unique_keys(count: usize) -> Vec<String> {
    let run = unique_prefix();
    (0..count).map(|number| format!("{run}-{number}")).collect()
}

/// Returns a prefix of keys that no other run has used.
pub(crate) fn unique_prefix() -> String {
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    format!("load-{:x}-{:x}", std::process::id(), now.as_nanos())
}

struct ConnectWorkload<'a> {
    specs: &'a [ClientSpec],
    ids: Vec<ConnId>,
    ready: usize,
    notices: usize,
    error: Option<Error>,
}

impl Handler for ConnectWorkload<'_> {
    fn on_event(&mut self, conns: &mut Connections, id: ConnId, tag: u64, event: Event<'_>) {
        match event {
            Event::Upgraded => {
                // The tags are ascending.
                let place = self.specs.binary_search_by_key(&tag, |client| client.tag);
                let Ok(place) = place else {
                    return;
                };
                let client = &self.specs[place];
                let mut frames = frame::client_text(&client.first_message);
                frame::push_client_frame(&mut frames, Opcode::Ping, b"");
                conns.send(id, &frames);
            }
            Event::Pong(_) => self.ready += 1,
            Event::Message(_) => self.notices += 1,
            Event::Close(code) => self.error = Some(closed_by_server(code)),
            Event::Disconnected(reason) => {
                // The code of a close frame, if there was one, is more specific.
                let closed = || Error::new(format!("connection rejected: {reason:?}"));
                self.error.get_or_insert_with(closed);
            }
            Event::Drained => {}
        }
    }
}

impl Workload for ConnectWorkload<'_> {
    fn take_error(&mut self) -> Option<Error> {
        self.error.take()
    }
}

/// Returns the error for a connection that the server has closed unexpectedly.
pub(crate) fn closed_by_server(code: Option<u16>) -> Error {
    let code = code.map_or_else(|| "no code".to_owned(), |code| code.to_string());
    Error::new(format!("connection closed by server with {code}"))
}

/// Less than the listen backlog of any server.
const MAX_CONCURRENT_CONNECTS: usize = 64;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(120);
