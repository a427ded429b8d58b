//! Lint rules of the project: ARCHITECTURE.md matches the tree, modules use what they may, and files are short.

use std::{
    collections::BTreeSet,
    error::Error,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use sigver_server::{
    AnyOf, BindError, Config, Denied, Handle, JwtKeys, JwtKeysError, MemoryBound, Network, Origin, RunError, Server,
    Tokens, TokensError,
};
use sigver_transcripts::modules::ModuleGraph;

type Fallible<T = ()> = Result<T, Box<dyn Error>>;

/// Maximum length of a file, in lines that are neither empty nor comments.
const MAX_LINES: usize = 680;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn page(name: &str) -> Fallible<String> {
    Ok(fs::read_to_string(root().join(name))?)
}

/// Returns every Rust file below a folder of the project.
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
    assert!(!found.is_empty(), "no source in {folder}");
    Ok(found)
}

fn is_code(line: &&str) -> bool {
    let line = line.trim_start();
    !line.is_empty() && !line.starts_with("//")
}

/// Returns the code spans in a section of ARCHITECTURE.md.
fn quoted(heading: &str) -> Fallible<Vec<String>> {
    let page = page("ARCHITECTURE.md")?;
    let (_, section) = page.split_once(&format!("\n## {heading}\n")).ok_or("no such section")?;
    let section = section.split("\n## ").next().unwrap_or(section);
    Ok(section.split('`').skip(1).step_by(2).map(str::to_owned).collect())
}

#[test]
fn architecture_table_lists_every_source() -> Fallible {
    let mut listed = BTreeSet::new();
    let mut folder = PathBuf::new();
    for name in quoted("Modules")? {
        // In "`sigver-server/src/counters.rs`, `admin.rs`", the second file is in the folder of the first.
        let path = if name.contains('/') {
            PathBuf::from(&name)
        } else {
            folder.join(&name)
        };
        folder = path.parent().map(Path::to_path_buf).unwrap_or_default();
        if name.ends_with('/') || name.ends_with(".rs") || name.ends_with(".md") {
            assert!(root().join(&path).exists(), "{} does not exist", path.display());
            listed.insert(path);
        }
    }
    for crate_sources in ["sigver-core/src", "sigver-server/src"] {
        for path in sources(crate_sources)? {
            let path = path.strip_prefix(root())?.to_path_buf();
            let is_root = path.ends_with("src/lib.rs");
            let is_listed = path.ancestors().any(|path| listed.contains(path));
            assert!(is_root || is_listed, "{} is in no row", path.display());
        }
    }
    Ok(())
}

#[test]
fn architecture_message_path_names_existing_functions() -> Fallible {
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
        // A method of tungstenite.
        if name.starts_with("WebSocketContext") {
            continue;
        }
        assert!(code.contains(&format!("fn {function}")), "there is no {name}");
        functions += 1;
    }
    assert!(functions > 8, "only {functions} functions are named");
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

#[test]
fn platform_code_is_in_sys_only() -> Fallible {
    let sys = root().join("sigver-server/src/sys");
    for path in sources("sigver-server/src")? {
        let text = fs::read_to_string(&path)?;
        for platform in ["rustix::", "libc::", "target_os", "target_vendor", "\"/proc/"] {
            let found = text.lines().filter(is_code).any(|line| line.contains(platform));
            assert!(!found || path.starts_with(&sys), "{} has {platform}", path.display());
        }
    }
    Ok(())
}

/// Without wildcard arms, a new message, role or event is a compile error in every match that must handle it.
#[test]
fn crates_warn_about_wildcard_match_arms() -> Fallible {
    for root in [
        "sigver-core/src/lib.rs",
        "sigver-server/src/lib.rs",
        "sigver-server/src/bin/sigver-server/main.rs",
    ] {
        // CI runs Clippy, which enforces it.
        assert!(
            page(root)?.contains("#![warn(clippy::wildcard_enum_match_arm)]"),
            "{root}"
        );
    }
    Ok(())
}

#[test]
fn source_files_are_short() -> Fallible {
    for folder in ["sigver-core", "sigver-server", "transcripts", "examples", "benches"] {
        for path in sources(folder)? {
            let lines = fs::read_to_string(&path)?.lines().filter(is_code).count();
            assert!(lines <= MAX_LINES, "{} has {lines} lines of code", path.display());
        }
    }
    Ok(())
}

fn items<'a>(value: &'a serde_json::Value, member: &str) -> Fallible<&'a Vec<serde_json::Value>> {
    Ok(value[member].as_array().ok_or_else(|| format!("no {member}"))?)
}

#[test]
fn architecture_lists_every_dependency() -> Fallible {
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
            let is_workspace = name.starts_with("sigver-");
            assert!(
                is_workspace || accounted.contains(name),
                "{name} of {}",
                package["name"]
            );
        }
    }
    Ok(())
}

/// The `release_max_level_*` features of `log` apply to a whole process, so a library must not enable them.
#[test]
fn library_sets_no_log_level() -> Fallible {
    let output = Command::new(env!("CARGO"))
        .args([
            "tree",
            "--offline",
            "--no-default-features",
            "--edges",
            "normal,features",
            "--invert",
            "log",
        ])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()?;
    let tree = String::from_utf8(output.stdout)?;
    assert!(tree.contains("sigver-server"), "{tree}");
    assert!(!tree.contains("max_level"), "{tree}");
    Ok(())
}

/// A compile-time check.
#[test]
fn public_types_are_send_sync_and_errors() {
    const fn is_sendable<T: Send + Sync + 'static>() {}
    const fn is_error<T: Error + Send + Sync + 'static>() {}
    is_sendable::<(
        Server,
        Handle,
        Config,
        MemoryBound,
        Network,
        Origin,
        Tokens,
        AnyOf,
        JwtKeys,
    )>();
    is_error::<BindError>();
    is_error::<Denied>();
    is_error::<RunError>();
    is_error::<TokensError>();
    is_error::<JwtKeysError>();
}

#[test]
fn modules_form_layers() -> Fallible {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    ModuleGraph::assert_layers(&manifest.join("src"), 25)?;
    ModuleGraph::assert_layers(&manifest.join("src/bin/sigver-server"), 6)?;
    Ok(())
}
