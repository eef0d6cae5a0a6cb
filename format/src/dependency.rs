//! What an asset was made from: other assets, or things outside the store, each in the version that was seen.
//!
//! ```text
//! dependency: [kind u8][reserved u8, 0][name length u16][version 16 bytes, big-endian][name]
//! ```
//! Kind 1 is an asset, named by its encoded key; kind 2 is something outside, named by UTF-8 without the byte 0. They are
//! in ascending order of kind and name, each once.

use crate::key::Key;

/// The most bytes that the name of something outside the store may have.
pub const EXTERNAL_NAME_LENGTH_MAX: usize = 1_024;

/// What an asset can depend on.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Node {
    /// Another asset.
    Asset(Key),
    /// Something outside of the store, by a name that the application chose.
    External(String),
}

impl Node {
    /// Gives the bytes by which it is named in a file.
    #[must_use]
    pub fn name(&self) -> &[u8] {
        match self {
            Self::Asset(key) => key.encoded(),
            Self::External(name) => name.as_bytes(),
        }
    }

    /// Gives the number of its kind in a file.
    #[must_use]
    pub fn kind(&self) -> u8 {
        match self {
            Self::Asset(_) => 1,
            Self::External(_) => 2,
        }
    }

    /// Makes it of its kind and name, if they are sound.
    #[must_use]
    pub fn from_parts(kind: u8, name: &[u8]) -> Option<Self> {
        match kind {
            1 => Key::decode(name).ok().map(Self::Asset),
            2 if is_external_name(name) => String::from_utf8(name.to_vec()).ok().map(Self::External),
            _ => None,
        }
    }
}

impl std::fmt::Display for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Asset(key) => write!(f, "{key}"),
            Self::External(name) => write!(f, "external {name}"),
        }
    }
}

/// Tells whether this can name something outside the store: 1 to 1 024 bytes of text without control characters.
#[must_use]
pub fn is_external_name(name: &[u8]) -> bool {
    (1..=EXTERNAL_NAME_LENGTH_MAX).contains(&name.len())
        && std::str::from_utf8(name).is_ok_and(|name| !name.chars().any(char::is_control))
}

/// One thing that an asset was made from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Dependency {
    /// What it is.
    pub on: Node,
    /// The version that was seen; 0 if it is unknown, which matches anything.
    pub version: u128,
}

impl Dependency {
    /// Tells whether what was seen is still so.
    #[must_use]
    pub fn matches(&self, version: u128) -> bool {
        self.version == 0 || version == 0 || self.version == version
    }

    /// Encodes dependencies, which are put in their order; of those on the same thing, the last stays.
    #[must_use]
    pub fn encode_all(dependencies: &[Self]) -> Vec<u8> {
        let ordered: std::collections::BTreeMap<(u8, &[u8]), u128> =
            dependencies.iter().map(|one| ((one.on.kind(), one.on.name()), one.version)).collect();
        let mut out = Vec::new();
        for ((kind, name), version) in ordered {
            out.extend_from_slice(&[kind, 0]);
            out.extend_from_slice(&u16::try_from(name.len()).unwrap_or(u16::MAX).to_le_bytes());
            out.extend_from_slice(&version.to_be_bytes());
            out.extend_from_slice(name);
        }
        out
    }

    /// Decodes dependencies.
    ///
    /// Gives what is wrong with them, if something is.
    pub(crate) fn decode_all(mut bytes: &[u8]) -> Result<Vec<Self>, &'static str> {
        let mut dependencies: Vec<Self> = Vec::new();
        while !bytes.is_empty() {
            let one = || {
                let ([kind, 0], rest) = bytes.split_first_chunk::<2>()? else { return None };
                let (length, rest) = rest.split_first_chunk::<2>()?;
                let (version, rest) = rest.split_first_chunk::<16>()?;
                let (name, rest) = rest.split_at_checked(usize::from(u16::from_le_bytes(*length)))?;
                Some((*kind, u128::from_be_bytes(*version), name, rest))
            };
            let (kind, version, name, rest) = one().ok_or("a dependency is cut short")?;
            let on = Node::from_parts(kind, name).ok_or("a dependency is on nothing that is known")?;
            let follows =
                dependencies.last().is_none_or(|last| (last.on.kind(), last.on.name()) < (kind, name));
            if !follows {
                return Err("dependencies are not in ascending order");
            }
            dependencies.push(Self { on, version });
            bytes = rest;
        }
        Ok(dependencies)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn on(key: &str, version: u128) -> Dependency {
        Dependency { on: Node::Asset(Key::parse(key).unwrap()), version }
    }

    #[test]
    fn dependencies_come_back_in_order_each_once() {
        let external = Dependency { on: Node::External("command:plot".into()), version: 7 };
        let given = [on("b/c", 1), external.clone(), on("a", 2), on("b/c", 3)];
        let bytes = Dependency::encode_all(&given);
        assert_eq!(Dependency::decode_all(&bytes).unwrap(), [on("a", 2), on("b/c", 3), external]);
        assert!(Dependency::decode_all(&[]).unwrap().is_empty());
    }

    #[test]
    fn hostile_bytes_are_an_error() {
        let bytes = Dependency::encode_all(&[on("a", 2), on("b", 3)]);
        for length in 1..bytes.len() {
            let is_whole = length == bytes.len() / 2;
            assert_eq!(Dependency::decode_all(&bytes[..length]).is_ok(), is_whole, "{length}");
        }
        let (first, second) = bytes.split_at(bytes.len() / 2);
        assert!(Dependency::decode_all(&[second, first].concat()).is_err(), "out of order");
        assert!(Dependency::decode_all(&[first, first].concat()).is_err(), "twice");
        let mut other = bytes.clone();
        other[0] = 9;
        assert!(Dependency::decode_all(&other).is_err(), "an unknown kind");
    }

    #[test]
    fn an_unknown_version_matches_anything() {
        assert!(
            on("a", 0).matches(5) && on("a", 5).matches(0) && on("a", 5).matches(5) && !on("a", 5).matches(6)
        );
    }
}
