//! The rules of the house that a machine can check: that ARCHITECTURE.md tells what the tree has, what each file may name, and how long
//! it may be.

use std::{
    collections::BTreeSet,
    error::Error,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use sigver_server::{
    BindError, Config, Denied, Handle, MemoryBound, Network, Origin, RunError, Server, Tokens, TokensError,
};
use sigver_transcripts::modules::ModuleGraph;

type Fallible<T = ()> = Result<T, Box<dyn Error>>;

/// The longest file, in lines that are neither empty nor a comment.
const LINES: usize = 680;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn page(name: &str) -> Fallible<String> {
    Ok(fs::read_to_string(root().join(name))?)
}

/// Every file of Rust below a folder of the project.
fn sources(folder: &str) -> Fallible<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_symlink() || path.ends_with("target") {
                continue;
            } else if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    assert!(!found.is_empty(), "nothing is in {folder}");
    Ok(found)
}

fn is_code(line: &&str) -> bool {
    let line = line.trim_start();
    !line.is_empty() && !line.starts_with("//")
}

/// What is in marks of code between two headings of ARCHITECTURE.md.
fn quoted(heading: &str) -> Fallible<Vec<String>> {
    let page = page("ARCHITECTURE.md")?;
    let (_, section) = page.split_once(&format!("\n## {heading}\n")).ok_or("no such section")?;
    let section = section.split("\n## ").next().unwrap_or(section);
    Ok(section.split('`').skip(1).step_by(2).map(str::to_owned).collect())
}

#[test]
fn every_source_is_in_the_table_and_every_row_is_a_source() -> Fallible {
    let mut listed = BTreeSet::new();
    let mut folder = PathBuf::new();
    for name in quoted("Modules")? {
        // "`sigver-server/src/counters.rs`, `admin.rs`": the second is where the first is.
        let path = if name.contains('/') {
            PathBuf::from(&name)
        } else {
            folder.join(&name)
        };
        folder = path.parent().map(Path::to_path_buf).unwrap_or_default();
        if name.ends_with('/') || name.ends_with(".rs") || name.ends_with(".md") {
            assert!(root().join(&path).exists(), "{} is not there", path.display());
            listed.insert(path);
        }
    }
    for crate_sources in ["sigver-core/src", "sigver-server/src"] {
        for path in sources(crate_sources)? {
            let path = path.strip_prefix(root())?.to_path_buf();
            let is_face = path.ends_with("src/lib.rs");
            let is_listed = path.ancestors().any(|path| listed.contains(path));
            assert!(is_face || is_listed, "{} is in no row", path.display());
        }
    }
    Ok(())
}

#[test]
fn the_way_of_a_message_names_what_is_there() -> Fallible {
    let mut code = String::new();
    for folder in ["sigver-core/src", "sigver-server/src"] {
        for path in sources(folder)? {
            code += &fs::read_to_string(path)?;
        }
    }
    let mut functions = 0;
    for name in quoted("The path of one message")? {
        let Some((_, function)) = name.rsplit_once("::") else {
            continue;
        };
        // tungstenite's own.
        if name.starts_with("WebSocketContext") {
            continue;
        }
        assert!(code.contains(&format!("fn {function}")), "there is no {name}");
        functions += 1;
    }
    assert!(functions > 8, "only {functions}");
    Ok(())
}

#[test]
fn tungstenite_is_used_by_handshake_reader_and_frame_only() -> Fallible {
    let mut naming = BTreeSet::new();
    for path in sources("sigver-server/src")?
        .into_iter()
        .chain(sources("sigver-core/src")?)
    {
        let text = fs::read_to_string(&path)?;
        if text.lines().filter(is_code).any(|line| line.contains("tungstenite::")) {
            naming.insert(path);
        }
    }
    let may = ["conn/handshake.rs", "conn/reader.rs", "write/frame.rs"];
    assert!(
        naming.iter().all(|path| may.iter().any(|name| path.ends_with(name))) && naming.len() == may.len(),
        "{naming:?}"
    );
    Ok(())
}

/// A message, a role or an event that is added is an error everywhere it matters: no arm takes what it does not name.
#[test]
fn no_match_on_our_own_has_an_arm_for_the_rest() -> Fallible {
    for face in [
        "sigver-core/src/lib.rs",
        "sigver-server/src/lib.rs",
        "sigver-server/src/bin/sigver-server/main.rs",
    ] {
        // Clippy holds to it, which is run for every change.
        assert!(
            page(face)?.contains("#![warn(clippy::wildcard_enum_match_arm)]"),
            "{face}"
        );
    }
    Ok(())
}

#[test]
fn no_file_is_long() -> Fallible {
    for folder in ["sigver-core", "sigver-server", "transcripts", "examples", "benches"] {
        for path in sources(folder)? {
            let lines = fs::read_to_string(&path)?.lines().filter(is_code).count();
            assert!(lines <= LINES, "{} has {lines} lines of code", path.display());
        }
    }
    Ok(())
}

fn items<'a>(value: &'a serde_json::Value, member: &str) -> Fallible<&'a Vec<serde_json::Value>> {
    Ok(value[member].as_array().ok_or_else(|| format!("no {member}"))?)
}

#[test]
fn every_dependency_is_accounted_for() -> Fallible {
    let page = page("ARCHITECTURE.md")?;
    let (_, section) = page.split_once("\n## Dependencies").ok_or("no such section")?;
    let accounted: BTreeSet<&str> = section.split("**").skip(1).step_by(2).collect();
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(root())
        .output()?;
    for package in items(&serde_json::from_slice(&output.stdout)?, "packages")? {
        for dependency in items(package, "dependencies")? {
            let name = dependency["name"].as_str().ok_or("no name")?;
            let is_ours = name.starts_with("sigver-");
            assert!(is_ours || accounted.contains(name), "{name} of {}", package["name"]);
        }
    }
    Ok(())
}

/// Checked by the compiler.
#[test]
fn the_face_goes_to_other_threads() {
    const fn moves<T: Send + Sync + 'static>() {}
    const fn is_error<T: Error + Send + Sync + 'static>() {}
    moves::<(Server, Handle, Config, MemoryBound, Network, Origin, Tokens)>();
    is_error::<BindError>();
    is_error::<Denied>();
    is_error::<RunError>();
    is_error::<TokensError>();
}

#[test]
fn modules_do_not_use_each_other_in_circles() -> Fallible {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    for (src, modules) in [("src", 25), ("src/bin/sigver-server", 5)] {
        let graph = ModuleGraph::read(&manifest.join(src))?;
        assert_eq!(graph.circle(), None, "in {src}");
        assert!(
            graph.users_of_root().is_empty(),
            "in {src}: {:?}",
            graph.users_of_root()
        );
        let (found, arrows) = graph.size();
        assert!(
            found > modules && arrows >= modules / 2,
            "only {found} and {arrows} in {src}"
        );
    }
    Ok(())
}
