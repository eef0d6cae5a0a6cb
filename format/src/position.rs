//! The applied position: what a state of a store is called.

use crate::writeset::StateIdentity;

/// The length of a position, in bytes.
pub const POSITION_LENGTH: usize = 48;

/// What a state is called: the last commit in it, and the identity of all that led there.
///
/// ```text
///  0  8 commit sequence number    8  8 commit time, microseconds    16 32 state identity
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Position {
    /// The sequence number of the last commit.
    pub sequence: u64,
    /// Its time, in microseconds since the epoch.
    pub time: i64,
    /// The identity of the state after it.
    pub identity: StateIdentity,
}

impl Position {
    /// Encodes it.
    #[must_use]
    pub fn encode(&self) -> [u8; POSITION_LENGTH] {
        let parts = self.sequence.to_le_bytes().into_iter().chain(self.time.to_le_bytes());
        let mut out = [0; POSITION_LENGTH];
        for (to, from) in out.iter_mut().zip(parts.chain(self.identity.0)) {
            *to = from;
        }
        out
    }

    /// Decodes it; nothing where the bytes are not as many as a position has.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (sequence, rest) = bytes.split_first_chunk::<8>()?;
        let (time, identity) = rest.split_first_chunk::<8>()?;
        Some(Self {
            sequence: u64::from_le_bytes(*sequence),
            time: i64::from_le_bytes(*time),
            identity: StateIdentity(identity.try_into().ok()?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_comes_back_and_is_refused_at_every_other_length() {
        let position = Position { sequence: 300, time: -2, identity: StateIdentity([9; 32]) };
        let bytes = position.encode();
        assert_eq!(Position::decode(&bytes), Some(position));
        assert_eq!((&bytes[..8], bytes[47]), (&300_u64.to_le_bytes()[..], 9));
        for length in 0..POSITION_LENGTH {
            assert_eq!(Position::decode(&bytes[..length]), None, "{length} bytes");
        }
        assert_eq!(Position::decode(&[&bytes[..], &[0]].concat()), None);
    }
}
