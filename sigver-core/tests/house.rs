//! The rules of the house that a machine can check: what the core depends on, and that the pages tell what the code does.

use std::{collections::BTreeSet, error::Error, fs, path::Path, process::Command};

use sigver_core::CloseReason;
use sigver_transcripts::{StepKind, all};

fn page(name: &str) -> Result<String, Box<dyn Error>> {
    Ok(fs::read_to_string(
        Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name),
    )?)
}

#[test]
fn the_core_depends_on_four_crates() -> Result<(), Box<dyn Error>> {
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

/// `| code | text |` of PROTOCOL.md, without the marks of code.
#[test]
fn the_protocol_page_lists_every_close_reason_and_no_other() -> Result<(), Box<dyn Error>> {
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

#[test]
fn the_protocol_page_quotes_transcripts_to_the_byte() -> Result<(), Box<dyn Error>> {
    let page = page("PROTOCOL.md")?;
    let mut quotes = 0;
    for quote in page.split("<!-- transcript: ").skip(1) {
        let (name, rest) = quote
            .split_once(" -->\n```text\n")
            .ok_or("a mark without a quotation")?;
        let (quoted, _) = rest.split_once("\n```").ok_or("a quotation without an end")?;
        let transcript = self::page(&format!("transcripts/{name}.txt"))?;
        let steps: Vec<&str> = transcript.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(quoted, steps.join("\n"), "{name}");
        quotes += 1;
    }
    assert!(quotes > 0);
    Ok(())
}

/// What takes time, a fault or a flood to provoke is tested by the server, not shown by a transcript.
const WITHOUT_TRANSCRIPT: [CloseReason; 4] = [
    CloseReason::ShuttingDown,
    CloseReason::Silent,
    CloseReason::Internal,
    CloseReason::TooSlow,
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
