//! The cases: every transcript and every hostile case. Decides which are skipped, and runs one.

use std::{
    io,
    time::{Duration, Instant},
};

use serde_json::Value;
use sigver_transcripts::{Frame, Limit, StepKind, Transcript, Wait, all, play, socket::Target};

use crate::{
    dialect::Dialect,
    hostile::{Hostile, Runs},
    judge::{Judge, Mismatch},
    options::Options,
};

/// A case: one row of the report.
pub(crate) struct Case {
    pub(crate) name: String,
    /// The section of PROTOCOL.md that the case tests.
    pub(crate) section: String,
    /// The expected behaviour, as a text for people.
    pub(crate) expected: String,
    script: Script,
}

enum Script {
    Transcript(Transcript),
    /// Runs in this dialect, or once if `None`.
    Hostile(&'static Hostile, Option<Dialect>),
}

impl Case {
    /// Returns every case, including those that will be skipped.
    pub(crate) fn all() -> io::Result<Vec<Self>> {
        let transcripts = all()?.into_iter().map(Self::transcript);
        let hostile = Hostile::all().flat_map(|hostile| {
            let dialects: &[Option<Dialect>] = match hostile.runs {
                Runs::InEachDialect => &[Some(Dialect::Plain), Some(Dialect::V1)],
                Runs::Once => &[None],
                Runs::Only(Dialect::Plain) => &[Some(Dialect::Plain)],
                Runs::Only(Dialect::V1) => &[Some(Dialect::V1)],
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
            script: Script::Transcript(transcript),
        }
    }

    fn hostile(hostile: &'static Hostile, dialect: Option<Dialect>) -> Self {
        let name = match (hostile.runs, dialect) {
            (Runs::InEachDialect, Some(dialect)) => format!("{}/{}", hostile.name, dialect.name()),
            _ => hostile.name.into(),
        };
        Self {
            name,
            section: hostile.section.into(),
            expected: hostile.expected.into(),
            script: Script::Hostile(hostile, dialect),
        }
    }

    /// Returns why the case is skipped with these options; `None` if it runs.
    pub(crate) fn skip_reason(&self, options: &Options) -> Option<String> {
        match &self.script {
            Script::Transcript(transcript) => skip_reason(transcript, options),
            Script::Hostile(_, Some(dialect)) if !options.dialects().contains(dialect) => {
                Some(format!("requires {}", dialect.name()))
            }
            Script::Hostile(hostile, _) if hostile.is_addition && options.without_additions => {
                Some(SKIPPED_ADDITION.into())
            }
            Script::Hostile(..) if !options.limits.is_empty() => Some("requires the default limits".into()),
            Script::Hostile(..) => None,
        }
    }

    /// Returns whether the case waits for a timeout of the server. Other cases run at the same time.
    pub(crate) fn waits(&self) -> bool {
        matches!(&self.script, Script::Hostile(hostile, _) if hostile.waits)
    }

    /// Runs the case.
    pub(crate) fn run(&self, options: &Options, target: &Target) -> Result<(), Mismatch> {
        match &self.script {
            Script::Transcript(transcript) => run(transcript, options, target),
            Script::Hostile(hostile, dialect) => {
                let dialect = dialect.unwrap_or(options.dialects()[0]);
                hostile.run(target, dialect, options)
            }
        }
    }
}

const SKIPPED_ADDITION: &str = "skipped by --without-additions";

fn skip_reason(transcript: &Transcript, options: &Options) -> Option<String> {
    let mut dialects = dialects(transcript);
    if let Some(other) = dialects.find(|dialect| !options.dialects().contains(dialect)) {
        return Some(format!("requires {}", other.name()));
    }
    if options.without_additions && has_additions(transcript) {
        return Some(SKIPPED_ADDITION.into());
    }
    let describe = |limits: &[(Limit, u32)]| {
        let mut words: Vec<String> = limits
            .iter()
            .map(|(limit, number)| format!("{}={number}", limit.name()))
            .collect();
        words.sort();
        words.join(" ")
    };
    let (required, given) = (describe(&transcript.limits), describe(&options.limits));
    if required != given {
        return Some(if required.is_empty() {
            "requires the default limits".into()
        } else {
            format!("requires --set {required}")
        });
    }
    if waits(transcript).any(|wait| wait == Wait::RoleDeadline) && options.role_deadline.is_none() {
        return Some("requires --role-deadline".into());
    }
    None
}

/// Returns the dialects of the clients of a transcript.
fn dialects(transcript: &Transcript) -> impl Iterator<Item = Dialect> + '_ {
    let mut known = Vec::new();
    transcript.steps.iter().filter_map(move |step| {
        let who = step.kind.who().filter(|who| !known.contains(who))?;
        known.push(who);
        Some(Dialect::of_offer(step.kind.subprotocol()))
    })
}

/// Returns whether a client of `sigver.v1` requests what `--without-additions` skips.
fn has_additions(transcript: &Transcript) -> bool {
    let mut v1 = Vec::new();
    transcript.steps.iter().any(|step| {
        let text = match &step.kind {
            StepKind::Connects(who, offer) if Dialect::of_offer(offer.as_deref()) == Dialect::V1 => {
                v1.push(*who);
                return false;
            }
            StepKind::Sends(who, Frame::Text(text)) if v1.contains(who) => &text[..],
            StepKind::SendsMade(who, text) if v1.contains(who) => text.as_bytes(),
            _ => return false,
        };
        let message: Value = serde_json::from_slice(text).unwrap_or_default();
        let has = |member| message.get(member).is_some();
        match message.get("type").and_then(Value::as_str) {
            Some("meet" | "ping") => true,
            Some("open" | "join") => has("id") || has("token") || has("wait"),
            _ => false,
        }
    })
}

/// Returns the times for which a transcript waits.
fn waits(transcript: &Transcript) -> impl Iterator<Item = Wait> + '_ {
    transcript.steps.iter().filter_map(|step| match step.kind {
        StepKind::Wait(wait) => Some(wait),
        _ => None,
    })
}

fn run(transcript: &Transcript, options: &Options, target: &Target) -> Result<(), Mismatch> {
    let role_deadline = options.role_deadline.unwrap_or_default();
    let waits = waits(transcript).map(|wait| match wait {
        Wait::RoleDeadline => role_deadline,
        Wait::Seconds(seconds) => Duration::from_secs(seconds.into()),
    });
    let until = Instant::now() + options.deadline + waits.sum::<Duration>();
    let mut judge = Judge::new(target, role_deadline, until);
    if options.ordered_pongs {
        judge.rely_on_pongs();
    }
    if options.without_additions {
        judge.expect_no_tokens();
    }
    let played = play(transcript, &mut judge);
    // The next transcript uses the same keys, so they must be free, even if this one has failed.
    let finished = judge.finish();
    played.map_err(|failure| {
        let place = match (failure.line, failure.who) {
            (Some(line), Some(who)) => format!("line {line}, {who}"),
            (Some(line), None) => format!("line {line}"),
            (None, Some(who)) => format!("after the last step, {who}"),
            (None, None) => "after the last step".into(),
        };
        Mismatch::new(format_args!("{place}: {}", failure.expected), failure.seen)
    })?;
    finished.map_err(|error| Mismatch::new("the server closes connections when clients disconnect", error))
}
