//! Checks that the modules of the library and of each program form layers: dependencies between them have no circle.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// Maps each module of a crate to the modules whose items it names.
///
/// Modules are files: `crate` is the root (`lib.rs` or `main.rs`), `a::b` is `a/b.rs` or `a/b/mod.rs`. A folder `bin`
/// below `src_root` holds other crates and is skipped. Dependencies are paths that begin with `crate`, `self`, `super`
/// or a child module; `mod x;` is none. A path into a module of the same file is none either.
fn module_graph(src_root: &Path) -> BTreeMap<String, BTreeSet<String>> {
    let mut files = BTreeMap::new();
    collect_modules(src_root, &[], &mut files);
    let graph = files.iter().map(|(module, file)| {
        let source = fs::read_to_string(file).expect("a source file is readable");
        let mut targets = BTreeSet::new();
        for path in named_paths(&tokens(&source), module, &files) {
            let known = (0..=path.len()).rev().map(|len| &path[..len]);
            let target = known.filter(|path| files.contains_key(*path)).map(display).next();
            targets.extend(target.filter(|target| *target != display(module)));
        }
        (display(module), targets)
    });
    graph.collect()
}

type Module = Vec<String>;

fn display(module: &[String]) -> String {
    if module.is_empty() {
        "crate".to_owned()
    } else {
        module.join("::")
    }
}

fn collect_modules(dir: &Path, module: &[String], files: &mut BTreeMap<Module, PathBuf>) {
    for entry in fs::read_dir(dir).expect("a source directory is readable") {
        let path = entry.expect("a directory entry is readable").path();
        let name = path
            .file_stem()
            .and_then(|name| name.to_str())
            .expect("UTF-8")
            .to_owned();
        let is_root = module.is_empty();
        let child = [module, std::slice::from_ref(&name)].concat();
        if path.is_dir() {
            if !(is_root && name == "bin") {
                collect_modules(&path, &child, files);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let is_own = name == "mod" || is_root && (name == "lib" || name == "main");
            files.insert(if is_own { module.to_vec() } else { child }, path);
        }
    }
}

/// Splits source text into identifiers, `::` and single characters, without comments and literals.
fn tokens(source: &str) -> Vec<&str> {
    let mut tokens = Vec::new();
    let mut rest = source;
    while let Some(first) = rest.chars().next() {
        let len = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if let Some(inner) = rest.strip_prefix('"') {
            let escapes = |at: usize| inner[..at].chars().rev().take_while(|&c| c == '\\').count();
            let mut quotes = inner.match_indices('"').map(|(at, _)| at);
            quotes.find(|&at| escapes(at) % 2 == 0).map_or(rest.len(), |at| at + 2)
        } else if rest.starts_with("r#\"") || rest.starts_with("br#\"") {
            rest.find("\"#").map_or(rest.len(), |at| at + 2)
        } else if first == '\'' {
            // A character, or the mark of a lifetime.
            let inner = if rest.starts_with("'\\") { 3 } else { 2 };
            let end = rest.char_indices().skip(inner).find(|&(_, c)| c == '\'');
            let is_char = |at: usize| inner == 3 || rest[1..at].chars().count() == 1;
            end.filter(|&(at, _)| is_char(at)).map_or(1, |(at, _)| at + 1)
        } else {
            let word = rest
                .find(|c: char| !c.is_alphanumeric() && c != '_')
                .unwrap_or(rest.len());
            let len = match word {
                0 if rest.starts_with("::") => 2,
                0 => first.len_utf8(),
                word => word,
            };
            tokens.extend(Some(&rest[..len]).filter(|token| !token.trim().is_empty()));
            len
        };
        rest = &rest[len..];
    }
    tokens
}

/// Lists the paths into this crate that the file of `module` names, each from the root of the crate.
fn named_paths(tokens: &[&str], module: &Module, files: &BTreeMap<Module, PathBuf>) -> Vec<Module> {
    let mut paths = Vec::new();
    let mut depth = 0;
    // Where the code is: the module of the file and the inline modules around it, these with the depth of their braces.
    let mut here = module.clone();
    let mut inline = Vec::new();
    let mut at = 0;
    while let Some(&token) = tokens.get(at) {
        let previous = |back: usize| at.checked_sub(back).map_or("", |at| tokens[at]);
        if token == "{" {
            depth += 1;
            if previous(2) == "mod" {
                here.push(previous(1).to_owned());
                inline.push(depth);
            }
        } else if token == "}" {
            if inline.last() == Some(&depth) {
                inline.pop();
                here.pop();
            }
            depth -= 1;
        } else if token == "use" || previous(1) != "::" && tokens.get(at + 1) == Some(&"::") {
            let start = if token == "use" { at + 1 } else { at };
            let is_child = |name: &str| files.contains_key(&[&here[..], &[name.to_owned()]].concat());
            let read = match tokens.get(start) {
                Some(&"crate") => 2 + expand(&tokens[start + 2..], &[], &mut paths),
                Some(&first) if first == "self" || first == "super" || is_child(first) => {
                    expand(&tokens[start..], &here, &mut paths)
                }
                // Another crate, whose modules may have the same names as ours.
                _ if token == "use" => tokens[start..].iter().take_while(|&&token| token != ";").count(),
                _ => 1,
            };
            at = start + read;
            continue;
        }
        at += 1;
    }
    paths
}

/// Reads one path below `prefix`, or several in braces, and returns how many tokens it takes.
fn expand(tokens: &[&str], prefix: &[String], paths: &mut Vec<Module>) -> usize {
    let mut path = prefix.to_vec();
    let mut at = 0;
    while let Some(&token) = tokens.get(at) {
        at += 1;
        match token {
            "{" => {
                while let Some(&inner) = tokens.get(at).filter(|&&token| token != "}") {
                    at += match inner {
                        "," => 1,
                        "as" => 2,
                        _ => expand(&tokens[at..], &path, paths),
                    };
                }
                return at + 1;
            }
            "super" => drop(path.pop()),
            "self" | "*" => {}
            name => path.push(name.to_owned()),
        }
        if tokens.get(at) != Some(&"::") {
            break;
        }
        at += 1;
    }
    paths.push(path);
    at
}

/// Finds modules that depend on each other in a circle: the first one is repeated at the end.
fn find_circle(graph: &BTreeMap<String, BTreeSet<String>>) -> Option<Vec<String>> {
    fn visit<'a>(
        graph: &'a BTreeMap<String, BTreeSet<String>>,
        module: &'a str,
        trail: &mut Vec<&'a str>,
        done: &mut BTreeSet<&'a str>,
    ) -> Option<Vec<String>> {
        if let Some(start) = trail.iter().position(|&earlier| earlier == module) {
            let circle = trail[start..].iter().chain([&module]);
            return Some(circle.map(|&module| module.to_owned()).collect());
        }
        if !done.insert(module) {
            return None;
        }
        trail.push(module);
        let targets = graph.get(module).into_iter().flatten();
        let circle = targets.into_iter().find_map(|target| visit(graph, target, trail, done));
        trail.pop();
        circle
    }
    let mut done = BTreeSet::new();
    graph
        .keys()
        .find_map(|module| visit(graph, module, &mut Vec::new(), &mut done))
}

fn assert_layers(src_root: &str) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(src_root);
    let graph = module_graph(&root);
    assert!(graph.values().any(|targets| !targets.is_empty()), "no dependency found");
    let circle = find_circle(&graph).map(|circle| circle.join(" -> "));
    assert_eq!(circle, None, "circle of modules in {src_root}");
}

#[test]
fn library_modules_form_layers() {
    assert_layers("src");
}

#[test]
fn load_modules_form_layers() {
    assert_layers("src/bin/load");
}

#[test]
fn yardstick_modules_form_layers() {
    assert_layers("src/bin/yardstick");
}

/// Writes a crate of these files and returns its module graph.
fn graph_of(name: &str, files: &[(&str, &str)]) -> BTreeMap<String, BTreeSet<String>> {
    let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("modules-{name}"));
    let _ = fs::remove_dir_all(&root);
    for (file, source) in files {
        let path = root.join(file);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder can be made");
        fs::write(path, source).expect("a file can be written");
    }
    module_graph(&root)
}

fn edges(graph: &BTreeMap<String, BTreeSet<String>>) -> Vec<String> {
    let edge = |(from, targets): (&String, &BTreeSet<String>)| {
        let edge = |target: &String| format!("{from} -> {target}");
        targets.iter().map(edge).collect::<Vec<_>>()
    };
    graph.iter().flat_map(edge).collect()
}

#[test]
fn circle_through_three_modules_is_named() {
    let graph = graph_of(
        "circle",
        &[
            ("main.rs", "mod a;\nmod b;\nfn main() { a::run(); }"),
            (
                "a/mod.rs",
                "mod deep;\npub fn run() { deep::run(); }\npub const X: u8 = 1;",
            ),
            ("a/deep.rs", "use crate::b::{self, Y as _};\npub fn run() { b::run(); }"),
            ("b.rs", "pub const Y: u8 = crate::a::X;\npub fn run() {}"),
        ],
    );
    assert_eq!(edges(&graph), ["a -> a::deep", "a::deep -> b", "b -> a", "crate -> a"]);
    let circle = find_circle(&graph).expect("a circle");
    assert_eq!(circle, ["a", "a::deep", "b", "a"]);
}

#[test]
fn paths_elsewhere_are_no_dependencies() {
    let graph = graph_of(
        "layers",
        &[
            (
                "lib.rs",
                "pub mod a;\nmod b;\nuse other::{a::X, b};\n// crate::b::X\nconst S: &str = \"crate::b::X } '\";",
            ),
            (
                "a.rs",
                "use super::b::X;\nmod inner {\n    use super::Own;\n    const C: char = '\\'';\n}\nstruct Own;\npub(crate) use self::Own as Z;",
            ),
            ("b.rs", "pub struct X;\n#[cfg(test)]\nmod tests { use super::*; }"),
            ("bin/main.rs", "use crate::a::X;"),
        ],
    );
    assert_eq!(edges(&graph), ["a -> b"]);
    assert_eq!(find_circle(&graph), None);
}
