//! What random programs were made of.

use std::collections::BTreeMap;

/// How often each kind of operation was done, and refused, in all programs together.
#[derive(Debug, Default)]
pub struct Drawn(BTreeMap<&'static str, (u64, u64)>);

impl Drawn {
    /// Of no program yet.
    pub const fn new() -> Self {
        Self(BTreeMap::new())
    }

    /// Adds what one program did: the name of each kind, how often it was done, and how often refused.
    pub fn add(&mut self, counts: impl IntoIterator<Item = (&'static str, u64, u64)>) {
        for (name, done, refused) in counts {
            let count = self.0.entry(name).or_default();
            *count = (count.0 + done, count.1 + refused);
        }
    }

    /// Prints it; gives how many kinds were never done, and so not tested.
    pub fn tell(&self) -> u64 {
        let told: Vec<String> =
            self.0.iter().map(|(name, (done, refused))| format!("{name} {done} and {refused}")).collect();
        println!("  done and refused: {}", told.join(", "));
        let never = self.0.iter().filter(|(_, (done, _))| *done == 0);
        never.inspect(|(name, _)| println!("  NEVER DONE: {name}")).count() as u64
    }
}
