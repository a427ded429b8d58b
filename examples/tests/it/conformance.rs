//! Runs the conformance kit as a process: against our servers, which pass, and against servers with one defect each, which fail the cases
//! that show the defect and no others.

use std::{collections::BTreeSet, error::Error, net::SocketAddr, process::Output, sync::Mutex, thread, time::Duration};

use serde_json::Value;
use sigver_server::{Config, Server};
use sigver_transcripts::{Limit, endpoint::set};

use super::{
    defective::{Defect, Defective},
    support::{Serving, example},
};

type Fallible<T = ()> = Result<T, Box<dyn Error + Send + Sync>>;

/// Runs the kit against a server.
fn kit(addr: SocketAddr, args: &[&str]) -> Fallible<Output> {
    Ok(example("conformance").arg(format!("ws://{addr}")).args(args).output()?)
}

/// The names of the cases by verdict.
#[derive(Debug, Default)]
struct Verdicts {
    passed: BTreeSet<String>,
    failed: BTreeSet<String>,
    skipped: BTreeSet<String>,
    /// The report of the failed cases.
    report: String,
}

fn verdicts(addr: SocketAddr, args: &[&str]) -> Fallible<Verdicts> {
    // Only a failure waits for the deadline, so it is longer than a loaded machine needs. Known failures set a shorter one.
    let long: &[&str] = if args.contains(&"--deadline") {
        &[]
    } else {
        &["--deadline", "60"]
    };
    let output = kit(addr, &[&["--format", "json"], long, args].concat())?;
    let report: Value = serde_json::from_slice(&output.stdout)
        .map_err(|error| format!("{error}: {}", String::from_utf8_lossy(&output.stderr)))?;
    let mut verdicts = Verdicts::default();
    for case in report["cases"].as_array().ok_or("no cases")? {
        let name = case["case"].as_str().ok_or("no name")?.to_owned();
        match case["verdict"].as_str() {
            Some("passed") => verdicts.passed.insert(name),
            Some("failed") => {
                verdicts.report += &format!("{:.500}\n", case.to_string());
                verdicts.failed.insert(name)
            }
            Some("skipped") => verdicts.skipped.insert(name),
            other => return Err(format!("unknown verdict: {other:?}").into()),
        };
    }
    let expected = i32::from(!verdicts.failed.is_empty());
    if output.status.code() != Some(expected) {
        return Err(format!("exit status {:?}, expected {expected}", output.status.code()).into());
    }
    Ok(verdicts)
}

/// Checks that a server fails exactly these cases. Known failures run with short deadlines, beside the others.
fn passes_except_for(addr: SocketAddr, known: &[&str]) -> Fallible {
    let choose = |flag| known.iter().flat_map(move |name| [flag, *name]).collect::<Vec<_>>();
    let short = ["--deadline", "1", "--head-deadline", "1"];
    let (others, failures) = thread::scope(|scope| {
        let failures = scope.spawn(|| verdicts(addr, &[&short[..], &choose("--only")].concat()));
        (verdicts(addr, &choose("--skip")), failures.join())
    });
    let others = others?;
    assert_eq!(others.failed, BTreeSet::new(), "{}", others.report);
    assert!(others.passed.len() > 125, "only {} passed", others.passed.len());
    let failures = failures.map_err(|_| "a thread panicked")??;
    assert!(
        failures.failed.iter().eq(known),
        "expected failures {known:?}: {failures:?}"
    );
    Ok(())
}

/// Starts a server with `sigver_server` as a library.
fn serve(change: impl FnOnce(&mut Config)) -> Fallible<SocketAddr> {
    let mut config = Config::default();
    config.listen = vec![SocketAddr::from(([127, 0, 0, 1], 0)).into()];
    change(&mut config);
    let server = Server::bind(config)?;
    let addr = server.local_addr().ok_or("no TCP address")?;
    // It runs until the process exits.
    thread::spawn(|| server.run());
    Ok(addr)
}

#[test]
fn default_server_passes() -> Fallible {
    let seen = verdicts(serve(|_| {})?, &[])?;
    assert_eq!(seen.failed, BTreeSet::new(), "{}", seen.report);
    assert!(seen.passed.len() > 125, "only {} passed", seen.passed.len());
    // Only cases that require other limits, or wait for the role deadline, are skipped.
    for name in &seen.skipped {
        let transcript = sigver_transcripts::all()?.into_iter().find(|it| it.name == *name);
        assert!(transcript.is_some_and(|it| requires_options(&it)), "{name} is skipped");
    }
    Ok(())
}

/// Returns whether a transcript requires a server with other limits or a short role deadline.
fn requires_options(transcript: &sigver_transcripts::Transcript) -> bool {
    let waits = |step: &sigver_transcripts::Step| {
        step.kind == sigver_transcripts::StepKind::Wait(sigver_transcripts::Wait::RoleDeadline)
    };
    !transcript.limits.is_empty() || transcript.steps.iter().any(waits)
}

#[test]
fn embed_mio_passes() -> Fallible {
    let server = Serving::start("embed_mio", &[]).map_err(|error| error.to_string())?;
    let seen = verdicts(server.addr, &[])?;
    assert_eq!(seen.failed, BTreeSet::new(), "{}", seen.report);
    assert!(seen.passed.len() > 125, "only {} passed", seen.passed.len());
    Ok(())
}

/// tungstenite does not limit empty fragments.
#[test]
fn embed_tokio_passes_except_for_empty_fragments() -> Fallible {
    let server = Serving::start("embed_tokio", &[]).map_err(|error| error.to_string())?;
    passes_except_for(
        server.addr,
        &["empty-pieces-without-end/plain", "empty-pieces-without-end/v1"],
    )
}

/// hyper accepts heads with any number of `Host` headers and of more than 8 KiB, `axum::serve` has no timeout for them, and tungstenite does
/// not limit empty fragments.
#[test]
fn embed_axum_passes_except_for_http_and_empty_fragments() -> Fallible {
    let server = Serving::start("embed_axum", &[]).map_err(|error| error.to_string())?;
    passes_except_for(
        server.addr,
        &[
            "empty-pieces-without-end/plain",
            "empty-pieces-without-end/v1",
            "half-a-head-and-silence",
            "head-over-every-limit",
            "head-without-one-host",
        ],
    )
}

/// Each transcript with limits runs against a server with these limits.
#[test]
fn server_with_other_limits_passes_with_set_options() -> Fallible {
    let mut required: Vec<Vec<(Limit, u32)>> = Vec::new();
    let mut names = BTreeSet::new();
    for transcript in sigver_transcripts::all()? {
        if !transcript.limits.is_empty() {
            names.insert(transcript.name);
            if !required.contains(&transcript.limits) {
                required.push(transcript.limits);
            }
        }
    }
    for limits in required {
        let addr = serve(|config| {
            limits
                .iter()
                .for_each(|(limit, number)| set(&mut config.endpoint, *limit, *number))
        })?;
        let options: Vec<String> = limits
            .iter()
            .map(|(limit, number)| format!("--set={}={number}", limit.name()))
            .collect();
        let seen = verdicts(addr, &options.iter().map(String::as_str).collect::<Vec<_>>())?;
        assert_eq!(seen.failed, BTreeSet::new(), "{options:?} {}", seen.report);
        names.retain(|name| !seen.passed.contains(name));
    }
    assert_eq!(names, BTreeSet::new(), "these never ran");
    // Some clients request a role before the deadline. On a busy machine, a short one may be too short.
    let mut seen = Verdicts::default();
    for seconds in ["1", "10", "30"] {
        let deadline = Duration::from_secs(seconds.parse()?);
        let addr = serve(|config| config.endpoint.limits.role_deadline = Some(deadline))?;
        seen = verdicts(addr, &["--role-deadline", seconds, "--only", "no-role-in-time"])?;
        if seen.failed.is_empty() {
            break;
        }
    }
    assert_eq!(seen.failed, BTreeSet::new(), "{}", seen.report);
    assert_eq!(seen.passed.len(), 2, "in both dialects");
    Ok(())
}

/// The report has the requested format, and the exit status is 2 for invalid options and unreachable servers.
#[test]
fn report_has_requested_format_and_exit_status() -> Fallible {
    let addr = serve(|_| {})?;
    let only = ["--only", "offer-and-answer", "--only", "too-big"];
    let run = |format: &'static str| -> Fallible<(Option<i32>, String)> {
        let output = kit(addr, &[&["--format", format], &only[..]].concat())?;
        Ok((output.status.code(), String::from_utf8(output.stdout)?))
    };
    let (code, table) = run("table")?;
    assert_eq!(code, Some(0));
    assert!(
        table.contains("offer-and-answer") && table.contains("Plain") && table.contains("1 passed, 0 failed"),
        "{table}"
    );
    let (code, tap) = run("tap")?;
    assert_eq!(code, Some(0));
    assert!(
        tap.starts_with("TAP version 1") && tap.contains("\n1..2\n") && tap.contains("# SKIP"),
        "{tap}"
    );
    let (_, json) = run("json")?;
    assert_eq!(
        serde_json::from_str::<Value>(&json)?["cases"].as_array().map(Vec::len),
        Some(2),
        "{json}"
    );
    for invalid in [&["--set", "tea=1"][..], &["--deadline", "0"], &["--dialect", "v2"]] {
        assert_eq!(kit(addr, invalid)?.status.code(), Some(2), "{invalid:?}");
    }
    let closed_port = SocketAddr::from(([127, 0, 0, 1], 1));
    assert_eq!(kit(closed_port, &[])?.status.code(), Some(2));
    Ok(())
}

/// The cases that a server with each defect fails.
const FAILED: &[(Defect, &[&str])] = &[
    (Defect::None, &[]),
    (
        Defect::OpenerLeavesInSilence,
        &[
            "after-close",
            "binary",
            "broken-framing",
            "close-codes",
            "cut-off-in-mid-frame",
            "duplicate-index",
            "empty-object",
            "has-role",
            "hijack-of-a-lost-key",
            "index-malformed",
            "invalid-json",
            "invalid-utf8",
            "key-unknown",
            "no-index",
            "not-an-object",
            "opener-is-closed",
            "opener-left",
            "opener-that-vanishes-from-a-crowd/plain",
            "opener-that-vanishes-from-a-crowd/v1",
            "opener-vanishes",
            "race-of-meets",
            "reset-in-mid-frame/plain",
            "reset-in-mid-frame/v1",
            "two-keys",
            "v1-and-plain",
            "v1-meet",
            "v1-reserved",
            "v1-roles-end",
            "v1-takeover",
        ],
    ),
    (
        Defect::JoinWhileClosingKills,
        &[
            "close-codes",
            "close-in-mid-message/v1",
            "frames-behind-a-close/v1",
            "key-unknown",
            "opener-left",
            "two-keys",
            "v1-and-plain",
            "v1-meet",
            "v1-reserved",
            "v1-roles-end",
        ],
    ),
    (
        Defect::AnyKey,
        &[
            "key-empty",
            "key-not-string",
            "key-of-60000-bytes/plain",
            "key-of-60000-bytes/v1",
            "key-of-default-length",
            "v1-malformed",
            "v1-reserved",
        ],
    ),
    (
        Defect::NoSizeLimit,
        &[
            "empty-pieces-without-end/plain",
            "empty-pieces-without-end/v1",
            "message-of-16-MiB/plain",
            "message-of-16-MiB/v1",
            "million-brackets",
            "white-space-of-1-MiB/plain",
            "white-space-of-1-MiB/v1",
        ],
    ),
    (
        Defect::RefusedOpenerTakesTheKey,
        &[
            "key-taken",
            "race-of-meets",
            "refused-joiners-use-no-index",
            "v1-refusals",
            "v1-takeover",
        ],
    ),
    (
        Defect::WrittenAgain,
        &[
            "answer-to-a-gone-joiner",
            "control-and-data",
            "duplicate-index",
            "duplicate-key",
            "duplicate-type",
            "empty-object",
            "fidelity-names",
            "fidelity-numbers",
            "fidelity-strings",
            "fidelity-white-space",
            "flood-of-one-client/plain",
            "flood-of-one-client/v1",
            "joiner-writes-index",
            "members-by-the-thousand/plain",
            "members-by-the-thousand/v1",
            "offer-and-answer",
            "v1-and-plain",
            "v1-data-to-plain",
            "v1-session",
            "white-space-of-60000-bytes/plain",
            "white-space-of-60000-bytes/v1",
        ],
    ),
    (
        Defect::WaitsForReaders,
        &["opener-that-never-reads/plain", "opener-that-never-reads/v1"],
    ),
    (Defect::HeadsTakeForEver, &["half-a-head-and-silence"]),
    (
        Defect::JoinerForgesIndex,
        &["duplicate-index", "has-role", "joiner-writes-index"],
    ),
    (Defect::DataIsTakenForControl, &["control-and-data"]),
    (Defect::RolesAddUp, &["has-role", "v1-refusals"]),
    (Defect::ArrayIsRelayed, &["texts-that-are-no-json/plain"]),
    (
        Defect::SecondOpenOrphansTheFirst,
        &["has-role", "v1-refusals", "v1-takeover"],
    ),
    (
        Defect::IndexOfNobodyKills,
        &["index-malformed", "index-names-nobody", "v1-refusals"],
    ),
    (
        Defect::HasOwnPropertyKills,
        &["control-in-any-spelling", "fidelity-names", "no-role"],
    ),
    (
        Defect::BrokenJsonKills,
        &[
            "invalid-json",
            "joiner-is-closed",
            "pieces",
            "refused-joiners-use-no-index",
            "texts-that-are-no-json/plain",
            "texts-that-are-no-json/v1",
            "v1-malformed",
            "waits-of-every-kind",
        ],
    ),
    (
        Defect::NonObjectKills,
        &[
            "not-an-object",
            "texts-that-are-no-json/plain",
            "texts-that-are-no-json/v1",
            "v1-malformed",
        ],
    ),
    (
        Defect::BrokenFramesKill,
        &[
            "broken-framing",
            "close-codes-that-are-none",
            "empty-pieces-without-end/plain",
            "empty-pieces-without-end/v1",
            "frame-that-says-it-is-huge/plain",
            "frame-that-says-it-is-huge/v1",
            "invalid-utf8",
            "mask-of-zeros/plain",
            "mask-of-zeros/v1",
            "message-of-16-MiB/plain",
            "message-of-16-MiB/v1",
            "million-brackets",
            "pieces-cut-within-a-character",
            "ping-of-16-KiB/plain",
            "ping-of-16-KiB/v1",
            "random-bytes/plain",
            "random-bytes/v1",
            "utf-8-broken-between-pieces/plain",
            "utf-8-broken-between-pieces/v1",
            "white-space-of-1-MiB/plain",
            "white-space-of-1-MiB/v1",
        ],
    ),
    (Defect::Compresses, &["head-that-offers-compression"]),
    (Defect::IndexWithoutRoleKills, &["duplicate-index", "no-role"]),
    (
        Defect::AnswerToGoneKills,
        &[
            "answer-to-a-gone-joiner",
            "index-names-nobody",
            "joiner-is-closed",
            "order",
            "v1-session",
        ],
    ),
    (
        Defect::PongOvertakes,
        &["ping-messages-between-requests", "role-that-moves-on-and-on"],
    ),
    (Defect::InvalidIdIsIgnored, &["ids-of-every-kind", "v1-id"]),
    (
        Defect::IdReachesNobody,
        &[
            "ids-of-every-kind",
            "v1-id",
            "v1-meet",
            "v1-takeover",
            "v1-wait",
            "waiters-that-vanish-or-leave",
            "waits-that-are-left",
        ],
    ),
    (Defect::WaitIsNotCut, &["v1-wait", "waits-of-every-kind"]),
    (
        Defect::LeaveDoesNotEndWait,
        &["v1-wait", "waits-of-every-kind", "waits-that-are-left"],
    ),
    (
        Defect::WaitersJoinInReverse,
        &["v1-wait", "waiters-that-vanish-or-leave"],
    ),
    (
        Defect::MeetOnlyOpens,
        &["hijack-of-a-lost-key", "race-of-meets", "v1-meet", "v1-reserved"],
    ),
    (
        Defect::MeetIsOpenOrJoin,
        &["hijack-of-a-lost-key", "race-of-meets", "v1-reserved"],
    ),
    (
        Defect::AnyTokenTakesOver,
        &[
            "guessed-tokens",
            "hijack-of-a-lost-key",
            "race-of-takeovers",
            "v1-reserved",
            "v1-takeover",
        ],
    ),
    (
        Defect::OldTokenTakesOver,
        &["guessed-tokens", "race-of-takeovers", "v1-takeover"],
    ),
    (
        Defect::TakeoverInSilence,
        &["race-of-takeovers", "role-that-moves-on-and-on", "v1-takeover"],
    ),
    (Defect::TakeoverListsNobody, &["race-of-takeovers", "v1-takeover"]),
    (
        Defect::LostKeyIsFree,
        &[
            "hijack-of-a-lost-key",
            "opener-that-vanishes-from-a-crowd/v1",
            "reset-in-mid-frame/v1",
            "v1-reserved",
        ],
    ),
    (Defect::NoGrace, &["join-before-its-open"]),
    (
        Defect::ReadsDuringGrace,
        &[
            "has-role",
            "join-before-its-open",
            "key-is-exact",
            "key-unknown",
            "refused-joiners-use-no-index",
            "requests-behind-a-join-of-no-key",
            "v1-reserved",
        ],
    ),
];

/// Defects that fail most cases: for each, some cases that fail and some that pass.
const EVERYWHERE: &[(Defect, &[&str], &[&str])] = &[
    (
        Defect::IndexIsThePlaceOfTheOpener,
        &["several-joiners"],
        &["key-taken", "v1-malformed"],
    ),
    (
        Defect::IndexAsString,
        &["offer-and-answer", "joiner-writes-index"],
        &["key-taken", "key-unknown"],
    ),
    (
        Defect::ClosedKeyIsReserved,
        &["v1-reserved"],
        &["key-taken", "hijack-of-a-lost-key"],
    ),
];

/// Short deadlines, because failing cases wait for them. Unexpected failures are repeated with the default deadlines.
const DEADLINE: &[&str] = &["--deadline", "1", "--head-deadline", "1", "--ordered-pongs"];

/// Cases that run against each server with a defect, in addition to those that must fail. If the environment variable
/// `SIGVER_ALL_DEFECT_CASES` is set, all cases run.
const SAMPLE: &[&str] = &[
    "fidelity-white-space",
    "index-names-nobody",
    "key-taken",
    "key-unknown",
    "members-by-the-thousand/plain",
    "opener-left",
    "order",
    "several-joiners",
    "v1-kick",
    "v1-refusals",
    "v1-session",
];

#[test]
fn defective_server_fails_the_cases_that_show_its_defect_and_no_others() {
    let queue = Mutex::new(FAILED.iter().rev().collect::<Vec<_>>());
    let errors = Mutex::new(String::new());
    let unexpected = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..12 {
            scope.spawn(|| {
                loop {
                    let next = queue.lock().expect("the lock is not poisoned").pop();
                    let Some((defect, expected)) = next else { break };
                    match unexpected_failures(*defect, expected) {
                        Ok(more) if more.is_empty() => {}
                        Ok(more) => unexpected
                            .lock()
                            .expect("the lock is not poisoned")
                            .push((*defect, more)),
                        Err(error) => errors
                            .lock()
                            .expect("the lock is not poisoned")
                            .push_str(&format!("{defect:?}: {error}\n")),
                    }
                }
            });
        }
    });
    let mut errors = errors.into_inner().expect("the lock is not poisoned");
    // Servers may be slow while many run at the same time. Unexpected failures are repeated alone, with the default deadlines.
    for (defect, more) in unexpected.into_inner().expect("the lock is not poisoned") {
        for name in more {
            match Defective::start(defect)
                .map_err(Into::into)
                .and_then(|server| verdicts(server.addr, &["--only", &name]))
            {
                Ok(seen) if seen.passed.contains(&name) => {}
                other => errors.push_str(&format!("{defect:?}: {name} fails unexpectedly: {other:?}\n")),
            }
        }
    }
    assert!(errors.is_empty(), "{errors}");
}

/// Runs the cases that a server with this defect must fail and the [`SAMPLE`], or all cases. Returns unexpected failures.
fn unexpected_failures(defect: Defect, expected: &[&str]) -> Fallible<BTreeSet<String>> {
    let mut args = DEADLINE.to_vec();
    if std::env::var_os("SIGVER_ALL_DEFECT_CASES").is_none() {
        args.extend(expected.iter().chain(SAMPLE).flat_map(|name| ["--only", name]));
    }
    let server = Defective::start(defect)?;
    let mut seen = verdicts(server.addr, &args)?;
    for name in expected {
        if !seen.failed.remove(*name) {
            return Err(format!("{name} passes").into());
        }
    }
    // Detects a name in the sample that is not a case.
    for name in SAMPLE.iter().filter(|name| !expected.contains(name)) {
        if !seen.passed.contains(*name) && !seen.failed.contains(*name) {
            return Err(format!("{name} did not run").into());
        }
    }
    Ok(seen.failed)
}

#[test]
fn defect_in_every_exchange_fails_the_simplest_cases() -> Fallible {
    for (defect, failed, passed) in EVERYWHERE {
        let server = Defective::start(*defect)?;
        for (names, fail) in [(failed, true), (passed, false)] {
            for name in *names {
                let deadline = if fail { DEADLINE } else { &[] };
                let seen = verdicts(server.addr, &[deadline, &["--only", name]].concat())?;
                let found = if fail { &seen.failed } else { &seen.passed };
                assert!(found.contains(*name), "{defect:?} {name}: {seen:?}");
            }
        }
    }
    Ok(())
}

/// A server without v1 passes with `--dialect plain` and fails v1 cases without it.
#[test]
fn server_without_v1_passes_with_dialect_plain() -> Fallible {
    let server = Defective::start(Defect::OnlyPlain)?;
    let seen = verdicts(server.addr, &["--dialect", "plain"])?;
    assert_eq!(seen.failed, BTreeSet::new(), "{}", seen.report);
    assert!(seen.skipped.contains("v1-session"));
    let seen = verdicts(server.addr, &[DEADLINE, &["--only", "v1-session"]].concat())?;
    assert!(seen.failed.contains("v1-session"), "{seen:?}");
    Ok(())
}

/// A server without the additions to v1 and without the grace passes with `--without-additions`, and fails every case that this skips.
#[test]
fn server_without_additions_passes_with_flag() -> Fallible {
    let server = Defective::start(Defect::WithoutAdditions)?;
    let without = verdicts(server.addr, &["--without-additions"])?;
    assert_eq!(without.failed, BTreeSet::new(), "{}", without.report);
    let only: Vec<&str> = without.skipped.iter().flat_map(|name| ["--only", name]).collect();
    let with = verdicts(server.addr, &[DEADLINE, &only].concat())?;
    let skipped: BTreeSet<_> = without.skipped.difference(&with.skipped).collect();
    assert!(skipped.len() > 15, "{skipped:?}");
    for name in skipped {
        assert!(with.failed.contains(name), "{name} passes");
    }
    Ok(())
}
