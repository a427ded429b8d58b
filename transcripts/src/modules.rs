//! The module graph of a crate, computed from its paths, so that a test can detect import cycles.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::Path,
};

/// The modules of a crate and their uses of each other. A module is named by its path without `crate::`; the root is `crate`.
#[derive(Debug)]
pub struct ModuleGraph(BTreeMap<String, BTreeSet<String>>);

impl ModuleGraph {
    /// Reads all sources in a folder, whose `lib.rs` or `main.rs` is the root. Skips folders named `bin`, which are other crates.
    ///
    /// # Errors
    ///
    /// If a file cannot be read.
    fn read(src: &Path) -> io::Result<Self> {
        let mut sources = Vec::new();
        collect(src, "", &mut sources)?;
        Ok(Self::of(sources))
    }

    fn of(sources: Vec<(String, String)>) -> Self {
        let modules: BTreeSet<String> = sources.iter().map(|(module, _)| module.clone()).collect();
        let edges = sources.into_iter().map(|(module, text)| {
            let used = paths(&tokens(&text))
                .iter()
                .filter_map(|path| resolve(&module, path, &modules))
                .filter(|used| *used != module)
                .collect();
            (module, used)
        });
        Self(edges.collect())
    }

    /// Checks that the modules in a folder form layers: none uses another in a circle, or the root. There must be at least this many modules
    /// and uses, so that a change of the layout does not make the check void.
    ///
    /// # Errors
    ///
    /// A file cannot be read.
    ///
    /// # Panics
    ///
    /// The modules do not form layers.
    #[track_caller]
    pub fn assert_layers(src: &Path, least: usize) -> io::Result<()> {
        let graph = Self::read(src)?;
        let src = src.display();
        assert_eq!(graph.circle(), None, "in {src}");
        assert_eq!(graph.users_of_root(), Vec::<&str>::new(), "use the root of {src}");
        let (modules, uses) = graph.size();
        assert!(
            modules >= least && uses >= least,
            "only {modules} modules and {uses} uses in {src}"
        );
        Ok(())
    }

    /// Returns the number of modules and the number of uses between them.
    fn size(&self) -> (usize, usize) {
        (self.0.len(), self.0.values().map(BTreeSet::len).sum())
    }

    /// Returns the modules that use re-exports of the root, in place of the module that defines the item.
    fn users_of_root(&self) -> Vec<&str> {
        let users = self.0.iter().filter(|(_, used)| used.contains("crate"));
        users.map(|(module, _)| module.as_str()).collect()
    }

    /// Returns the modules of an import cycle, if there is one.
    fn circle(&self) -> Option<Vec<&str>> {
        let mut done = BTreeSet::new();
        self.0
            .keys()
            .find_map(|module| self.circle_from(module, &mut Vec::new(), &mut done))
    }

    fn circle_from<'a>(
        &'a self,
        module: &'a str,
        path: &mut Vec<&'a str>,
        done: &mut BTreeSet<&'a str>,
    ) -> Option<Vec<&'a str>> {
        if let Some(start) = path.iter().position(|earlier| *earlier == module) {
            return Some(path[start..].to_vec());
        }
        if done.contains(module) {
            return None;
        }
        path.push(module);
        let found = self.0[module]
            .iter()
            .find_map(|used| self.circle_from(used, path, done));
        path.pop();
        done.insert(module);
        found
    }
}

/// Lists the modules in a folder with their texts.
fn collect(folder: &Path, prefix: &str, sources: &mut Vec<(String, String)>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        if path.is_dir() {
            if name != "bin" {
                collect(&path, &format!("{prefix}{name}::"), sources)?;
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let module = match (&*name, prefix) {
                ("lib" | "main" | "mod", "") => "crate".to_owned(),
                ("mod", _) => prefix.trim_end_matches("::").to_owned(),
                _ => format!("{prefix}{name}"),
            };
            sources.push((module, fs::read_to_string(&path)?));
        }
    }
    Ok(())
}

/// Splits a source into words and single characters, without comments, literals and the unit tests at its end.
fn tokens(text: &str) -> Vec<&str> {
    let text = text.split("\nmod tests {").next().unwrap_or(text);
    let mut tokens = Vec::new();
    for line in text.lines() {
        let mut rest = line;
        while let Some(first) = rest.chars().next() {
            if rest.starts_with("//") {
                break;
            }
            let is_word = |character: char| character.is_alphanumeric() || character == '_';
            let length = match first {
                '"' => string_length(rest),
                _ if is_word(first) => rest.find(|character| !is_word(character)).unwrap_or(rest.len()),
                _ => first.len_utf8(),
            };
            let (token, after) = rest.split_at(length);
            if first != '"' && !first.is_whitespace() {
                tokens.push(token);
            }
            rest = after;
        }
    }
    tokens
}

/// Returns the length of a string literal, up to the end of the line.
fn string_length(text: &str) -> usize {
    let mut is_escaped = false;
    let end = text.char_indices().skip(1).find(|(_, character)| {
        let is_end = *character == '"' && !is_escaped;
        is_escaped = *character == '\\' && !is_escaped;
        is_end
    });
    end.map_or(text.len(), |(end, _)| end + 1)
}

/// Returns every path that starts with `crate`, `super` or `self`, with groups in braces expanded.
fn paths<'a>(tokens: &[&'a str]) -> Vec<Vec<&'a str>> {
    let mut paths = Vec::new();
    for (index, token) in tokens.iter().enumerate() {
        let is_inner = index > 0 && tokens[index - 1] == ":";
        if ["crate", "super", "self"].contains(token) && !is_inner {
            tree(tokens, index, &[], &mut paths);
        }
    }
    paths
}

/// Reads the path or group at `index`, which follows `prefix`. Returns the index after it.
fn tree<'a>(tokens: &[&'a str], mut index: usize, prefix: &[&'a str], paths: &mut Vec<Vec<&'a str>>) -> usize {
    let mut path = prefix.to_vec();
    loop {
        match tokens.get(index) {
            Some(&"{") => {
                index += 1;
                while let Some(token) = tokens.get(index) {
                    index = match *token {
                        "}" => return index + 1,
                        "," => index + 1,
                        "as" => index + 2,
                        _ => tree(tokens, index, &path, paths).max(index + 1),
                    };
                }
                return index;
            }
            Some(word) if word.starts_with(|first: char| first.is_alphabetic() || first == '_') => {
                path.push(word);
                index += 1;
            }
            _ => break,
        }
        if tokens.get(index..index + 2) != Some(&[":", ":"]) {
            break;
        }
        index += 2;
    }
    paths.push(path);
    index
}

/// Returns the module that a path of `module` leads into.
fn resolve(module: &str, path: &[&str], modules: &BTreeSet<String>) -> Option<String> {
    let mut at: Vec<&str> = match path.first()? {
        &"crate" => Vec::new(),
        _ if module == "crate" => Vec::new(),
        _ => module.split("::").collect(),
    };
    // `self` alone is a receiver or the end of a group.
    if path.len() == 1 {
        return None;
    }
    for segment in path {
        match *segment {
            "crate" | "self" => {}
            "super" => {
                at.pop();
            }
            name => {
                at.push(name);
                if !modules.contains(&at.join("::")) {
                    at.pop();
                    break;
                }
            }
        }
    }
    Some(if at.is_empty() {
        "crate".to_owned()
    } else {
        at.join("::")
    })
}

#[cfg(test)]
mod tests {
    use super::ModuleGraph;

    fn graph(sources: &[(&str, &str)]) -> ModuleGraph {
        ModuleGraph::of(
            sources
                .iter()
                .map(|(module, text)| ((*module).to_owned(), (*text).to_owned()))
                .collect(),
        )
    }

    #[test]
    fn nested_groups_count_as_uses_of_each_module() {
        let graph = graph(&[
            ("crate", "mod a;\nmod b;\npub use a::A;\n"),
            (
                "a",
                "use crate::{b::{self, c::{C, D}}, e};\nfn f() { let url = \"crate::x\"; // crate::y\n}\n",
            ),
            ("b", ""),
            ("b::c", "use super::B;\n"),
            ("e", "fn f() -> crate::b::c::C { self.g() }\n"),
        ]);
        let edges: Vec<_> = graph
            .0
            .iter()
            .flat_map(|(from, to)| to.iter().map(move |to| format!("{from} -> {to}")))
            .collect();
        assert_eq!(edges, ["a -> b", "a -> b::c", "a -> e", "b::c -> b", "e -> b::c"]);
        assert_eq!(graph.circle(), None);
        assert_eq!(graph.size(), (5, 5));
    }

    #[test]
    fn circle_is_found_and_named() {
        let graph = graph(&[
            ("crate", "mod a;"),
            ("a", "use crate::b::B;"),
            ("b", "use crate::c::{C};"),
            ("c", "fn c() { crate::a::f() }"),
            ("d", "use crate::a::A;"),
        ]);
        assert_eq!(graph.circle(), Some(vec!["a", "b", "c"]));
    }

    #[test]
    fn users_of_re_exports_are_named() {
        let graph = graph(&[
            ("crate", "pub use a::A;"),
            ("a", ""),
            ("b", "use crate::A;"),
            ("c", "use crate::a::A;"),
        ]);
        assert_eq!(graph.users_of_root(), ["b"]);
    }

    #[test]
    fn unit_tests_at_the_end_do_not_count() {
        let graph = graph(&[
            ("crate", ""),
            ("a", "use crate::b::B;"),
            ("b", "\n#[cfg(test)]\nmod tests {\n    use crate::a::A;\n}\n"),
        ]);
        assert_eq!(graph.circle(), None);
    }
}
