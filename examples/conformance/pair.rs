//! An opener and a joiner that exchange data. Hostile cases use pairs as bystanders, and to check that the server still works.

use std::{io, time::Instant};

use sigver_transcripts::{
    Seen,
    socket::{Client, Target},
};

use crate::{
    dialect::{Dialect, join, open},
    judge::{Mismatch, is_same},
};

/// An opener and its first joiner.
pub(crate) struct Pair {
    pub(crate) dialect: Dialect,
    pub(crate) opener: Client,
    pub(crate) joiner: Client,
    /// The number of messages sent in each direction.
    sent: usize,
}

/// Checks the next frame that a client receives.
pub(crate) fn expect(client: &mut Client, dialect: Dialect, expected: &Seen) -> Result<(), Mismatch> {
    let seen = client.receive();
    if is_same(dialect, expected, &seen) {
        Ok(())
    } else {
        Err(Mismatch::new(expected, seen))
    }
}

/// Connects a client and opens `key`, which must be free.
pub(crate) fn opener(target: &Target, dialect: Dialect, key: &str, until: Instant) -> Result<Client, Mismatch> {
    let mut client = target.connect(dialect.offer(), until)?;
    client.send_text(&open(key))?;
    match dialect.opened(key) {
        Some(opened) => expect(&mut client, dialect, &opened)?,
        None => {
            client.handled()?;
            expect_nothing(&mut client)?;
        }
    }
    Ok(client)
}

/// Connects a client, joins `key` and checks that it receives `index`. Does not check the notice to the opener.
pub(crate) fn joiner(
    target: &Target,
    dialect: Dialect,
    key: &str,
    index: usize,
    until: Instant,
) -> Result<Client, Mismatch> {
    let mut client = target.connect(dialect.offer(), until)?;
    client.send_text(&join(key))?;
    if let Some(joined) = dialect.joined(index) {
        expect(&mut client, dialect, &joined)?;
    }
    Ok(client)
}

/// Checks that a client has received nothing and is connected.
pub(crate) fn expect_nothing(client: &mut Client) -> Result<(), Mismatch> {
    match client.leftover() {
        Seen::Nothing => Ok(()),
        seen => Err(Mismatch::new("nothing", seen)),
    }
}

impl Pair {
    /// Connects an opener of `key`, which must be free, and a joiner.
    pub(crate) fn new(target: &Target, dialect: Dialect, key: &str, until: Instant) -> Result<Self, Mismatch> {
        let mut opener = opener(target, dialect, key, until)?;
        let joiner = joiner(target, dialect, key, 0, until)?;
        expect(&mut opener, dialect, &dialect.peer_joined(0))?;
        Ok(Self {
            dialect,
            opener,
            joiner,
            sent: 0,
        })
    }

    /// Sends the next message in both directions.
    pub(crate) fn send(&mut self) -> io::Result<()> {
        let data = data(self.sent);
        self.sent += 1;
        self.joiner.send_text(&self.dialect.joiner_sends(&data))?;
        self.opener.send_text(&self.dialect.opener_sends(0, &data))
    }

    /// Checks that both clients receive the message that was sent `ago` messages ago.
    pub(crate) fn receive(&mut self, ago: usize) -> Result<(), Mismatch> {
        let data = data(self.sent - ago);
        expect(&mut self.opener, self.dialect, &self.dialect.opener_receives(0, &data))?;
        expect(&mut self.joiner, self.dialect, &self.dialect.joiner_receives(0, &data))
    }

    /// Sends a message in both directions and checks that it is received.
    pub(crate) fn exchange(&mut self) -> Result<(), Mismatch> {
        self.send()?;
        self.receive(1)
    }

    /// Disconnects both clients, and waits until the server has closed the connections.
    pub(crate) fn finish(&mut self) -> io::Result<()> {
        self.joiner.hang_up();
        self.opener.vanish()?;
        self.joiner.vanish()
    }
}

fn data(number: usize) -> String {
    format!(r#"{{"n":{number},"s":"é 🍵"}}"#)
}
