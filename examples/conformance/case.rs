//! Which cases there are: every transcript and every hostile case. Owns which of them are skipped, and runs one.

use std::{io, time::Instant};

use sigver_transcripts::{Limit, StepKind, Transcript, all, play, socket::Target};

use crate::{
    dialect::Dialect,
    hostile::Hostile,
    judge::{Judge, Mismatch},
    options::Options,
};

/// One line of the table.
pub(crate) struct Case {
    pub(crate) name: String,
    /// The section of PROTOCOL.md that it is about.
    pub(crate) section: String,
    /// What is expected, for people.
    pub(crate) expected: String,
    play: Play,
}

enum Play {
    Transcript(Transcript),
    /// In a dialect, unless it is about none.
    Hostile(&'static Hostile, Option<Dialect>),
}

impl Case {
    /// Every case, whether or not it can be run.
    pub(crate) fn all() -> io::Result<Vec<Self>> {
        let transcripts = all()?.into_iter().map(Self::transcript);
        let hostile = Hostile::all().flat_map(|hostile| {
            let dialects: &[Option<Dialect>] = if hostile.in_dialects {
                &[Some(Dialect::Plain), Some(Dialect::V1)]
            } else {
                &[None]
            };
            dialects.iter().map(move |dialect| Self::hostile(hostile, *dialect))
        });
        Ok(transcripts.chain(hostile).collect())
    }

    fn transcript(transcript: Transcript) -> Self {
        Self {
            name: transcript.name.clone(),
            section: transcript.section.clone(),
            expected: transcript.title.clone(),
            play: Play::Transcript(transcript),
        }
    }

    fn hostile(hostile: &'static Hostile, dialect: Option<Dialect>) -> Self {
        let name = match dialect {
            Some(dialect) => format!("{}/{}", hostile.name, dialect.name()),
            None => hostile.name.into(),
        };
        Self {
            name,
            section: hostile.section.into(),
            expected: hostile.expected.into(),
            play: Play::Hostile(hostile, dialect),
        }
    }

    /// Why it is not run against this server, if it is not.
    pub(crate) fn skipped(&self, options: &Options) -> Option<String> {
        match &self.play {
            Play::Transcript(transcript) => skipped(transcript, options),
            Play::Hostile(_, Some(dialect)) if !options.dialects().contains(dialect) => {
                Some(format!("is about {}", dialect.name()))
            }
            Play::Hostile(..) if !options.limits.is_empty() => Some("wants the default limits".into()),
            Play::Hostile(..) => None,
        }
    }

    /// Whether it waits for a deadline of the server, so that others can run meanwhile.
    pub(crate) fn waits(&self) -> bool {
        matches!(&self.play, Play::Hostile(hostile, _) if hostile.waits)
    }

    /// Runs it.
    pub(crate) fn run(&self, options: &Options, target: &Target) -> Result<(), Mismatch> {
        match &self.play {
            Play::Transcript(transcript) => run(transcript, options, target),
            Play::Hostile(hostile, dialect) => {
                let dialect = dialect.unwrap_or(options.dialects()[0]);
                hostile.run(target, dialect, options)
            }
        }
    }
}

fn skipped(transcript: &Transcript, options: &Options) -> Option<String> {
    let mut spoken = dialects(transcript);
    if let Some(other) = spoken.find(|dialect| !options.dialects().contains(dialect)) {
        return Some(format!("is about {}", other.name()));
    }
    let wants = |limits: &[(Limit, u32)]| {
        let mut words: Vec<String> = limits
            .iter()
            .map(|(limit, number)| format!("{}={number}", limit.name()))
            .collect();
        words.sort();
        words.join(" ")
    };
    let (wanted, given) = (wants(&transcript.limits), wants(&options.limits));
    if wanted != given {
        return Some(if wanted.is_empty() {
            "wants the default limits".into()
        } else {
            format!("wants --set {wanted}")
        });
    }
    if waits(transcript) > 0 && options.role_deadline.is_none() {
        return Some("wants --role-deadline".into());
    }
    None
}

/// What its clients speak.
fn dialects(transcript: &Transcript) -> impl Iterator<Item = Dialect> + '_ {
    let mut known = Vec::new();
    transcript.steps.iter().filter_map(move |step| {
        let who = step.kind.who().filter(|who| !known.contains(who))?;
        known.push(who);
        Some(Dialect::of_offer(step.kind.subprotocol()))
    })
}

/// How often the role deadline passes in it.
fn waits(transcript: &Transcript) -> u32 {
    let steps = transcript.steps.iter();
    steps
        .map(|step| u32::from(step.kind == StepKind::WaitRoleDeadline))
        .sum()
}

fn run(transcript: &Transcript, options: &Options, target: &Target) -> Result<(), Mismatch> {
    let role_deadline = options.role_deadline.unwrap_or_default();
    let until = Instant::now() + options.deadline + role_deadline * waits(transcript);
    let mut judge = Judge::new(target, role_deadline, until);
    if options.ordered_pongs {
        judge.rely_on_pongs();
    }
    let played = play(transcript, &mut judge);
    // The next transcript has the same keys: they have to be free, also where this one has failed.
    let finished = judge.finish();
    played.map_err(|failure| {
        let place = match (failure.line, failure.who) {
            (Some(line), Some(who)) => format!("line {line}, {who}"),
            (Some(line), None) => format!("line {line}"),
            (None, Some(who)) => format!("at the end, {who}"),
            (None, None) => "at the end".into(),
        };
        Mismatch::new(format_args!("{place}: {}", failure.expected), failure.seen)
    })?;
    finished.map_err(|error| Mismatch::new("connections end when their clients do", error))
}
