//! How a stored stream is cut into rows.
//!
//! redb rounds a value and its overhead up to a power of two of pages. A row has 16 bytes of key and redb's
//! 8 of overhead, and an 8-byte checksum before its body: bodies of `2^k * 4096 - 32` bytes fill pages without
//! waste, while bodies of `2^k * 4096` would take twice their size.
//!
//! ```text
//! class 2..4:  | full | full | ... | full | tail: the largest piece that fits, again and again | rest < 4064 |
//! class 1:     | the whole stream in one row, up to 16 MiB: a typed payload that is read in place            |
//! ```
//!
//! A stream of 0 bytes has no rows.

/// The length of a page of redb, in bytes.
const PAGE_LENGTH: u64 = 4096;
/// What of a row's pages its body cannot use: key, redb's overhead, checksum; in bytes.
const ROW_OVERHEAD: u64 = 32;
const MIB: u64 = 1 << 20;

/// The greatest length of a payload that is stored in one row, in bytes.
pub(crate) const CONTIGUOUS_LENGTH_MAX: u64 = 16 * MIB;
/// The length up to which a payload is cut into rows of 64 KiB, in bytes: from 256 KiB on, larger rows are read a sixth faster whole.
const SMALL_LENGTH_MAX: u64 = MIB / 4 - 1;
/// How much of a payload of unknown length is held back until its rows are chosen, in bytes; a longer one is cut into rows of 1 MiB.
pub(crate) const UNDECIDED_LENGTH_MAX: u64 = MIB;
/// The length up to which a payload is cut into rows of 256 KiB, in bytes.
const MIDDLE_LENGTH_MAX: u64 = 16 * MIB;

/// How large the rows of a payload are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum ChunkClass {
    /// All in one row.
    Contiguous = 1,
    /// 16 pages a row.
    Kib64 = 2,
    /// 64 pages a row.
    Kib256 = 3,
    /// 256 pages a row.
    Mib1 = 4,
}

const _: () = assert!(ChunkClass::Mib1.pages() * PAGE_LENGTH == MIB);

impl ChunkClass {
    /// Gives the number that stands for the class on disk.
    pub(crate) const fn number(self) -> u8 {
        self as u8
    }

    /// Gives the class with this number.
    pub(crate) const fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Contiguous),
            2 => Some(Self::Kib64),
            3 => Some(Self::Kib256),
            4 => Some(Self::Mib1),
            _ => None,
        }
    }

    /// Chooses the class for a payload of this many bytes that is not to be contiguous.
    pub(crate) const fn for_length(length: u64) -> Self {
        if length <= SMALL_LENGTH_MAX {
            Self::Kib64
        } else if length <= MIDDLE_LENGTH_MAX {
            Self::Kib256
        } else {
            Self::Mib1
        }
    }

    /// Gives the pages of a full row; 0 for the class that has no full rows.
    const fn pages(self) -> u64 {
        match self {
            Self::Contiguous => 0,
            Self::Kib64 => 16,
            Self::Kib256 => 64,
            Self::Mib1 => 256,
        }
    }

    /// Gives the length of the body of a full row, in bytes; of a contiguous row, the longest.
    pub(crate) const fn body_length(self) -> u64 {
        match self {
            Self::Contiguous => CONTIGUOUS_LENGTH_MAX,
            _ => self.pages() * PAGE_LENGTH - ROW_OVERHEAD,
        }
    }
}

/// One row of a stored stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Chunk {
    /// The number of the row, from 0.
    pub(crate) number: u64,
    /// Where in the stored stream its body begins.
    pub(crate) offset: u64,
    /// The length of its body in bytes, never 0.
    pub(crate) length: u64,
}

/// How a stored stream of known length is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Layout {
    /// The size of full rows.
    pub(crate) class: ChunkClass,
    /// The length of the stream in bytes.
    pub(crate) stored_length: u64,
}

impl Layout {
    /// Counts the full rows, and gives the length of each.
    fn full(&self) -> (u64, u64) {
        match self.class {
            ChunkClass::Contiguous => (u64::from(self.stored_length > 0), self.stored_length),
            class => (self.stored_length / class.body_length(), class.body_length()),
        }
    }

    fn tail(&self) -> impl Iterator<Item = Chunk> + use<> {
        let (count, length) = self.full();
        let (mut number, mut offset) = (count, count * length);
        let mut pieces = Pieces { rest: self.stored_length - offset, pages: self.class.pages() / 2 };
        std::iter::from_fn(move || {
            let chunk = Chunk { number, offset, length: pieces.next()? };
            number += 1;
            offset += chunk.length;
            Some(chunk)
        })
    }

    /// Gives all rows, in the order of the stream.
    pub(crate) fn chunks(&self) -> impl Iterator<Item = Chunk> + use<> {
        self.chunks_from(0)
    }

    /// Gives the rows from this number on.
    pub(crate) fn chunks_from(&self, number: u64) -> impl Iterator<Item = Chunk> + use<> {
        let (count, length) = self.full();
        (number..count)
            .map(move |number| Chunk { number, offset: number * length, length })
            .chain(self.tail().skip_while(move |chunk| chunk.number < number))
    }

    /// Counts the rows.
    pub(crate) fn count(&self) -> u64 {
        self.full().0 + self.tail().map(|_| 1).sum::<u64>()
    }

    /// Finds the row that has the byte at `offset`, and where in its body that byte is.
    ///
    /// None at or after the end of the stream. Takes a dozen steps at most.
    pub(crate) fn locate(&self, offset: u64) -> Option<(Chunk, u64)> {
        if offset >= self.stored_length {
            return None;
        }
        let (count, length) = self.full();
        let chunk = match offset.checked_div(length) {
            Some(number) if number < count => Chunk { number, offset: number * length, length },
            _ => self.tail().find(|chunk| offset - chunk.offset < chunk.length)?,
        };
        Some((chunk, offset - chunk.offset))
    }
}

/// The lengths of the rows that a tail is cut into.
struct Pieces {
    rest: u64,
    pages: u64,
}

impl Iterator for Pieces {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        while self.pages > 0 {
            let length = self.pages * PAGE_LENGTH - ROW_OVERHEAD;
            if length <= self.rest {
                self.rest -= length;
                return Some(length);
            }
            self.pages /= 2;
        }
        Some(std::mem::take(&mut self.rest)).filter(|rest| *rest > 0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CLASSES: [ChunkClass; 4] =
        [ChunkClass::Contiguous, ChunkClass::Kib64, ChunkClass::Kib256, ChunkClass::Mib1];

    fn check(layout: Layout) {
        let mut end = 0;
        let mut count = 0;
        for chunk in layout.chunks() {
            assert_eq!((chunk.number, chunk.offset), (count, end), "{layout:?}");
            assert!(chunk.length > 0 && chunk.length <= layout.class.body_length());
            for within in [0, chunk.length / 2, chunk.length - 1] {
                assert_eq!(layout.locate(end + within), Some((chunk, within)), "{layout:?}");
            }
            end += chunk.length;
            count += 1;
        }
        assert_eq!((end, count), (layout.stored_length, layout.count()), "{layout:?}");
        assert_eq!(layout.locate(layout.stored_length), None);
    }

    #[test]
    fn numbers_of_classes_round_trip() {
        for class in CLASSES {
            assert_eq!(ChunkClass::from_number(class.number()), Some(class));
        }
        assert_eq!(CLASSES.map(ChunkClass::number), [1, 2, 3, 4]);
        assert_eq!((ChunkClass::from_number(0), ChunkClass::from_number(5)), (None, None));
        assert_eq!(CLASSES.map(ChunkClass::body_length), [16 << 20, 65_504, 262_112, 1_048_544]);
    }

    #[test]
    fn lengths_around_every_boundary_are_covered() {
        for class in CLASSES {
            for pages in [0, 1, 2, 3, 4, 15, 16, 17, 32, 63, 64, 65, 255, 256, 257, 511, 512, 1024] {
                for overheads in 0..4 {
                    for delta in -2_i64..=2 {
                        let length = (pages * 4096 - overheads * 32 + delta).max(0).cast_unsigned();
                        check(Layout { class, stored_length: length });
                    }
                }
            }
        }
    }

    #[test]
    fn a_tail_is_cut_in_descending_powers_of_two() {
        let layout = Layout { class: ChunkClass::Kib64, stored_length: 65_504 + 32_736 + 8_160 + 4_064 + 7 };
        let lengths: Vec<_> = layout.chunks().map(|chunk| chunk.length).collect();
        assert_eq!(lengths, [65_504, 32_736, 8_160, 4_064, 7]);
    }

    #[test]
    fn a_stream_of_the_greatest_length_is_located_without_overflow() {
        for class in [ChunkClass::Kib64, ChunkClass::Mib1] {
            let layout = Layout { class, stored_length: u64::MAX };
            let (chunk, within) = layout.locate(u64::MAX - 1).unwrap();
            assert_eq!(chunk.offset + within, u64::MAX - 1);
            assert_eq!(chunk.number + 1, layout.count());
        }
    }

    proptest! {
        #[test]
        fn rows_cover_the_stream_exactly(class in 0_usize..4, stored_length in 0_u64..(16 << 20)) {
            check(Layout { class: CLASSES[class], stored_length });
        }
    }
}
