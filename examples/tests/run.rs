//! Runs every example as a user would, and looks at what it says.

use std::{path::PathBuf, process::Command};

/// The example's binary, which cargo has built beside this test.
fn example(name: &str) -> Command {
    let mut path: PathBuf = std::env::current_exe().expect("a test knows where it is");
    path.pop();
    if path.ends_with("deps") {
        path.pop();
    }
    Command::new(path.join("examples").join(name))
}

#[test]
fn in_process() {
    let output = example("in_process").output().expect("the example starts");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(said.contains(r#"opener hears {"type":"join"}"#), "{said}");
    assert!(
        said.contains(r#"opener hears {"type":"offer","sdp":"…","index":0}"#),
        "{said}"
    );
    assert!(
        said.contains(r#"joiner hears {"index":0,"type":"answer","sdp":"…"}"#),
        "{said}"
    );
    assert!(said.contains("opener is closed: server shutting down"), "{said}");
}
