//! A folder with stores in it, on a clock that stands.

use std::path::PathBuf;
use std::sync::Arc;

use larder::{Clock, Larder, ManualClock, Options, SnapshotOptions};
use tempfile::TempDir;

use crate::{Workload, still};

/// A folder, and the time in it.
pub struct Lab {
    folder: TempDir,
    /// The time.
    pub clock: Arc<ManualClock>,
}

impl Default for Lab {
    fn default() -> Self {
        let folder = tempfile::tempdir().expect("a folder for temporary files");
        Self { folder, clock: Arc::new(ManualClock::at(1_000_000)) }
    }
}

impl Lab {
    /// Makes a folder.
    pub fn new() -> Self {
        Self::default()
    }

    /// Gives the path of a name in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Options with its clock.
    pub fn options(&self) -> Options {
        still().clock(Arc::clone(&self.clock) as Arc<dyn Clock>)
    }

    /// Opens a store, or makes it.
    pub fn open(&self, name: &str) -> Larder {
        self.options().open(self.path(name)).expect("a store that opens")
    }

    /// Makes a store with a bit of everything in it.
    pub fn filled(&self, name: &str, seed: u64, steps: usize) -> Larder {
        let larder = self.open(name);
        let mut workload = Workload::new(seed);
        for _ in 0..steps {
            workload.step(&larder, &self.clock).expect("a disk that works");
        }
        larder
    }

    /// Lists the names in it.
    pub fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.folder.path()).expect("a folder of ours");
        let mut names: Vec<String> = entries
            .map(|entry| entry.expect("a folder of ours").file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }
}

/// All rows of a store, as bytes: the same for the same state.
pub fn dump(larder: &Larder) -> Vec<u8> {
    let mut out = Vec::new();
    larder.snapshot_into(&mut out, &SnapshotOptions::new()).expect("a store that can be read");
    out
}
