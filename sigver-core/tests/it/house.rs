//! Rules that a test can check: the dependencies of the core, and the agreement of PROTOCOL.md with the code.

use std::{collections::BTreeSet, error::Error, fs, path::Path, process::Command};

use sigver_core::{CloseReason, Dialect, Frame, Index, Key, Limits, OutboundMessage, Refusal, RoleEnd};
use sigver_transcripts::{StepKind, all, modules::ModuleGraph};

use crate::refusals::refusals;

fn page(name: &str) -> Result<String, Box<dyn Error>> {
    Ok(fs::read_to_string(
        Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name),
    )?)
}

#[test]
fn core_has_four_dependencies() -> Result<(), Box<dyn Error>> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()?;
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let packages = metadata["packages"].as_array().ok_or("no packages")?;
    let core = packages
        .iter()
        .find(|package| package["name"] == "sigver-core")
        .ok_or("no core")?;
    let dependencies: BTreeSet<&str> = core["dependencies"]
        .as_array()
        .ok_or("no dependencies")?
        .iter()
        .filter(|dependency| dependency["kind"].is_null())
        .filter_map(|dependency| dependency["name"].as_str())
        .collect();
    assert_eq!(
        dependencies,
        BTreeSet::from(["serde", "serde_json", "slab", "thiserror"])
    );
    Ok(())
}

/// Compares the rows `| code | text |` of PROTOCOL.md with the close reasons.
#[test]
fn protocol_page_lists_exactly_the_close_reasons() -> Result<(), Box<dyn Error>> {
    let page = page("PROTOCOL.md")?;
    let listed: BTreeSet<(String, String)> = page
        .lines()
        .filter_map(|line| {
            let mut cells = line.strip_prefix("| ")?.split(" | ");
            let code = cells.next().filter(|code| code.parse::<u16>().is_ok())?;
            let text = cells.next()?.trim_end_matches(" |").trim();
            let text = text
                .strip_prefix("`` ")
                .and_then(|text| text.strip_suffix(" ``"))
                .unwrap_or(text.trim_matches('`'));
            Some((code.to_owned(), text.to_owned()))
        })
        .collect();
    let known = CloseReason::ALL
        .iter()
        .map(|reason| (reason.code().to_string(), reason.to_string()))
        .collect();
    assert_eq!(listed, known);
    Ok(())
}

/// Compares the rows `| code | message | further member | …` of PROTOCOL.md with the encoded errors.
#[test]
fn protocol_page_lists_exactly_the_refusals() -> Result<(), Box<dyn Error>> {
    let page = page("PROTOCOL.md")?;
    let (_, section) = page.split_once("\n## Error codes\n").ok_or("no section")?;
    let (section, _) = section.split_once("\n## ").ok_or("no end of the section")?;
    let listed: BTreeSet<(String, String, Option<String>)> = section
        .lines()
        .filter_map(|line| {
            let mut cells = line.strip_prefix("| ")?.split('|').map(str::trim);
            let code = cells.next()?.strip_prefix('`')?.strip_suffix('`')?;
            let message = cells.next()?.trim_matches('`').trim();
            // A message that begins with a backtick is quoted in two backticks and a space.
            let beside = cells.next()?.split('`').nth(1).map(str::to_owned);
            Some((code.to_owned(), message.to_owned(), beside))
        })
        .collect();

    let key = Key::new("tea", &Limits::default())?;
    let mut known = BTreeSet::new();
    for refusal in refusals(&key, Index::new(0)) {
        let (code, message) = (refusal.name(), refusal.to_string());
        // A joiner gives no index, and a request for a generated key no key; the page says so.
        if matches!(
            refusal,
            Refusal::NotAnObject { index: None } | Refusal::NotAllowed { key: None }
        ) {
            continue;
        }
        let Some(Frame::Text(frame)) = Dialect::V1.encode(OutboundMessage::Refused(refusal)) else {
            return Err("an error is text".into());
        };
        let error: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&frame)?;
        assert_eq!((&error["type"], &error["code"]), (&"error".into(), &code.into()));
        assert_eq!(error["message"], message);
        let beside = error.into_iter().map(|(name, _)| name);
        let beside: Vec<String> = beside
            .filter(|name| !["type", "code", "message"].contains(&name.as_str()))
            .collect();
        assert!(beside.len() <= 1, "{frame}");
        known.insert((code.to_owned(), message, beside.into_iter().next()));
    }
    assert_eq!(listed, known);
    Ok(())
}

/// Compares the codes in the row of `closed` with the role ends.
#[test]
fn protocol_page_lists_exactly_the_role_ends() -> Result<(), Box<dyn Error>> {
    let page = page("PROTOCOL.md")?;
    let row = page
        .lines()
        .find(|line| line.contains(r#"{"type":"closed","code":C}"#))
        .ok_or("no row for closed")?;
    let meaning = row.split('|').nth(3).ok_or("no meaning")?;
    let listed: BTreeSet<&str> = meaning.split('`').skip(1).step_by(2).collect();
    assert_eq!(listed, ROLE_ENDS.iter().map(|end| end.name()).collect());
    Ok(())
}

/// Every end of a role.
const ROLE_ENDS: &[RoleEnd] = {
    const fn known(end: RoleEnd) -> RoleEnd {
        match end {
            // Add a new variant to the list below.
            RoleEnd::OpenerLeft | RoleEnd::Kicked | RoleEnd::TakenOver | RoleEnd::TokenExpired => end,
        }
    }
    &[
        known(RoleEnd::OpenerLeft),
        known(RoleEnd::Kicked),
        known(RoleEnd::TakenOver),
        known(RoleEnd::TokenExpired),
    ]
};

#[test]
fn protocol_page_quotes_transcripts_exactly() -> Result<(), Box<dyn Error>> {
    let page = page("PROTOCOL.md")?;
    let mut quotes = 0;
    for quote in page.split("<!-- transcript: ").skip(1) {
        let (name, rest) = quote
            .split_once(" -->\n```text\n")
            .ok_or("a mark without a quotation")?;
        let (quoted, _) = rest.split_once("\n```").ok_or("a quotation without an end")?;
        let transcript = self::page(&format!("transcripts/{name}.txt"))?;
        let is_header = |line: &&str| line.starts_with('#') || line.starts_with("section ");
        let steps: Vec<&str> = transcript.lines().skip_while(is_header).collect();
        assert_eq!(quoted, steps.join("\n"), "{name}");
        quotes += 1;
    }
    assert!(quotes > 0);
    Ok(())
}

#[test]
fn every_transcript_names_a_section_of_the_protocol_page() -> Result<(), Box<dyn Error>> {
    let page = page("PROTOCOL.md")?;
    let headings: BTreeSet<&str> = page.lines().filter_map(|line| line.strip_prefix("## ")).collect();
    for transcript in all()? {
        let (name, section) = (transcript.name, transcript.section);
        assert!(headings.contains(section.as_str()), "{name}.txt: {section:?}");
    }
    Ok(())
}

/// Reasons that need time, a fault, a flood or an embedder that decides. Other tests show them.
const WITHOUT_TRANSCRIPT: [CloseReason; 7] = [
    CloseReason::ShuttingDown,
    CloseReason::Silent,
    CloseReason::Internal,
    CloseReason::TooSlow,
    CloseReason::NotAllowed,
    CloseReason::TokenExpired,
    CloseReason::ClosedByOperator,
];

#[test]
fn every_close_reason_has_a_transcript() -> Result<(), Box<dyn Error>> {
    let mut shown = BTreeSet::new();
    for transcript in all()? {
        for step in transcript.steps {
            if let StepKind::Closed(_, code, text) = step.kind {
                shown.insert((code, text));
            }
        }
    }
    for reason in CloseReason::ALL
        .iter()
        .filter(|reason| !WITHOUT_TRANSCRIPT.contains(reason))
    {
        assert!(
            shown.contains(&(reason.code(), reason.to_string())),
            "no transcript shows {reason:?}"
        );
    }
    Ok(())
}

#[test]
fn every_refusal_and_role_end_has_a_transcript() -> Result<(), Box<dyn Error>> {
    let mut shown = BTreeSet::new();
    for transcript in all()? {
        for step in transcript.steps {
            if let StepKind::Receives(_, text) | StepKind::ReceivesMade(_, text) = step.kind {
                if let Ok(frame) = serde_json::from_str::<serde_json::Value>(&text) {
                    let member = |name| frame[name].as_str().map(str::to_owned);
                    shown.insert((member("type"), member("code")));
                }
            }
        }
    }
    let refusals = Refusal::NAMES.iter().map(|code| ("error", *code));
    let ends = ROLE_ENDS.iter().map(|end| ("closed", end.name()));
    let by_embedder = WITHOUT_TRANSCRIPT.map(CloseReason::name);
    for (kind, code) in refusals.chain(ends).filter(|(_, code)| !by_embedder.contains(code)) {
        let is_shown = shown.contains(&(Some(kind.to_owned()), Some(code.to_owned())));
        assert!(is_shown, "no transcript shows {kind} {code}");
    }
    Ok(())
}

#[test]
fn modules_form_layers() -> Result<(), Box<dyn Error>> {
    ModuleGraph::assert_layers(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), 20)?;
    Ok(())
}
