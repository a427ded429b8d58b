//! An opener and a joiner that talk: the bystanders of every hostile case, and what shows that a server lives.

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
    /// How many messages were sent each way.
    said: usize,
}

/// Checks what a client sees next.
pub(crate) fn sees(client: &mut Client, dialect: Dialect, expected: &Seen) -> Result<(), Mismatch> {
    let seen = client.receive();
    if is_same(dialect, expected, &seen) {
        Ok(())
    } else {
        Err(Mismatch::new(expected, seen))
    }
}

/// The opener of a key that nobody has.
pub(crate) fn opener(target: &Target, dialect: Dialect, key: &str, until: Instant) -> Result<Client, Mismatch> {
    let mut client = target.connect(dialect.offer(), until)?;
    client.send_text(&open(key))?;
    match dialect.opened(key) {
        Some(opened) => sees(&mut client, dialect, &opened)?,
        None => {
            client.handled()?;
            sees_nothing(&mut client)?;
        }
    }
    Ok(client)
}

/// A joiner of a key, and the `index`-th. What its opener hears of it is not looked at.
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
        sees(&mut client, dialect, &joined)?;
    }
    Ok(client)
}

/// Checks that nothing has come, and that the connection is alive.
pub(crate) fn sees_nothing(client: &mut Client) -> Result<(), Mismatch> {
    match client.leftover() {
        Seen::Nothing => Ok(()),
        seen => Err(Mismatch::new("nothing", seen)),
    }
}

impl Pair {
    /// A pair of a key that nobody has.
    pub(crate) fn new(target: &Target, dialect: Dialect, key: &str, until: Instant) -> Result<Self, Mismatch> {
        let mut opener = opener(target, dialect, key, until)?;
        let joiner = joiner(target, dialect, key, 0, until)?;
        sees(&mut opener, dialect, &dialect.came(0))?;
        Ok(Self {
            dialect,
            opener,
            joiner,
            said: 0,
        })
    }

    /// Says something, both ways.
    pub(crate) fn say(&mut self) -> io::Result<()> {
        let data = data(self.said);
        self.said += 1;
        self.joiner.send_text(&self.dialect.joiner_says(&data))?;
        self.opener.send_text(&self.dialect.opener_says(0, &data))
    }

    /// Hears what was said `ago` messages ago.
    pub(crate) fn hear(&mut self, ago: usize) -> Result<(), Mismatch> {
        let data = data(self.said - ago);
        sees(&mut self.opener, self.dialect, &self.dialect.opener_hears(0, &data))?;
        sees(&mut self.joiner, self.dialect, &self.dialect.joiner_hears(0, &data))
    }

    /// Says something both ways, and hears it.
    pub(crate) fn talk(&mut self) -> Result<(), Mismatch> {
        self.say()?;
        self.hear(1)
    }

    /// Ends both connections, and waits for the server to have noticed.
    pub(crate) fn finish(&mut self) -> io::Result<()> {
        self.joiner.hang_up();
        self.opener.vanish()?;
        self.joiner.vanish()
    }
}

fn data(number: usize) -> String {
    format!(r#"{{"n":{number},"s":"é 🍵"}}"#)
}
