//! Temporary files.

use std::{fs, path::PathBuf};

/// A file that is there as long as this.
pub(crate) struct TempFile(PathBuf);

impl TempFile {
    /// Creates a file. No two tests may use the same name.
    pub(crate) fn with(name: &str, text: &str) -> Self {
        let path = std::env::temp_dir().join(format!("sigver-{}-{name}", std::process::id()));
        let file = Self(path);
        file.write(text);
        file
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
