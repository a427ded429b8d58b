//! Temporary files.

use std::{fs, path::PathBuf};

/// A file that is removed with this.
pub(crate) struct TempFile(PathBuf);

impl TempFile {
    /// Creates a file. No two tests may use the same name.
    pub(crate) fn with(name: &str, text: &str) -> Self {
        let file = Self::unused(name);
        file.write(text);
        file
    }

    /// Returns a path at which there is no file yet. No two tests may use the same name.
    pub(crate) fn unused(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("sigver-{}-{name}", std::process::id()));
        let _ = fs::remove_file(&path);
        Self(path)
    }

    pub(crate) fn write(&self, text: &str) {
        fs::write(&self.0, text).expect("a temporary file");
    }

    pub(crate) fn path(&self) -> &str {
        self.0.to_str().expect("a path in UTF-8")
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}
