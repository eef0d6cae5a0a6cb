//! Typed payloads: values in rkyv's archived form behind an envelope, read where they lie.
//!
//! The archive is validated once, when it is opened; after that a field costs what a field of a struct costs. It
//! can be read in place where its address is a multiple of the alignment of everything in it: the envelope has 48
//! bytes, so a payload that begins at a multiple of 16 qualifies always. Any other is copied once.
//!
//! rkyv aligns what a root points to relative to the beginning of the archive, so the alignment of the root alone
//! does not tell whether an address will do. An address that suits the root is tried: the validation finds a
//! misaligned part before anything is read through it, and then the copy is made after all.

use std::any::type_name;
use std::fmt;
use std::ops::Deref;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use larder_format::{
    ByteOrder, ENVELOPE_ALIGNMENT_MAX, ENVELOPE_LENGTH, Envelope, EnvelopeError, RKYV_FORMAT,
    type_fingerprint,
};
use rkyv::api::high::{HighDeserializer, HighSerializer, HighValidator, to_bytes_in};
use rkyv::bytecheck::CheckBytes;
use rkyv::rancor;
use rkyv::ser::allocator::ArenaHandle;
use rkyv::util::AlignedVec;
use rkyv::{Archive, Archived, Deserialize, Serialize};
use yoke::Yoke;

use crate::error::{Error, ErrorKind, Result};

const ALIGNMENT_MAX: usize = ENVELOPE_ALIGNMENT_MAX as usize;

const _: () = assert!(ENVELOPE_LENGTH.is_multiple_of(ALIGNMENT_MAX));

/// A type whose values can be stored as typed payloads: any with `#[derive(rkyv::Archive, rkyv::Serialize)]`.
pub trait Storable: for<'a> Serialize<HighSerializer<AlignedVec, ArenaHandle<'a>, rancor::Error>> {}

impl<T> Storable for T where T: for<'a> Serialize<HighSerializer<AlignedVec, ArenaHandle<'a>, rancor::Error>> {}

/// A type whose stored values can be read in place: any with `#[derive(rkyv::Archive)]` that borrows nothing.
pub trait Loadable:
    Archive<Archived: for<'a> CheckBytes<HighValidator<'a, rancor::Error>> + 'static> + 'static
{
}

impl<T> Loadable for T
where
    T: Archive + 'static,
    T::Archived: for<'a> CheckBytes<HighValidator<'a, rancor::Error>> + 'static,
{
}

/// A payload where the store keeps it.
pub(crate) trait PayloadPage: Send + Sync {
    /// Gives the payload, from its envelope on.
    fn body(&self) -> &[u8];
}

impl PayloadPage for Bytes {
    fn body(&self) -> &[u8] {
        self
    }
}

/// Where a typed value is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Placement {
    /// Where the store keeps it: nothing was copied.
    InPlace,
    /// In a copy: it came in several rows, or at an address that does not suit its type.
    Copied,
}

enum Cart {
    InPlace(Box<dyn PayloadPage>),
    /// Put together by the store: a copy as well.
    Assembled(Bytes),
    /// The archive alone, at a suitable address.
    Copied(AlignedVec<ALIGNMENT_MAX>),
}

impl Cart {
    fn archive(&self) -> &[u8] {
        let payload = match self {
            Self::InPlace(page) => page.body(),
            Self::Assembled(bytes) => bytes,
            Self::Copied(archive) => return archive,
        };
        payload.get(ENVELOPE_LENGTH..).unwrap_or_default()
    }
}

/// A stored value of type `T`, in its archived form; dereferences to `T::Archived`.
///
/// Cheap to clone: the clones share the bytes. A value that is [`Placement::InPlace`] may keep a part of the file
/// or of a cache from being reused for as long as it lives.
pub struct TypedValue<T: Loadable> {
    archived: Yoke<&'static Archived<T>, Arc<Cart>>,
}

impl<T: Loadable> TypedValue<T> {
    /// Opens a typed payload where the store keeps it, and copies it only where its address does not suit.
    ///
    /// # Errors
    /// [`ErrorKind::TypeMismatch`] where the payload is not a typed one, or one of another type or build;
    /// [`ErrorKind::Corrupt`] where envelope or archive are malformed.
    pub(crate) fn from_page(page: Box<dyn PayloadPage>) -> Result<Self> {
        Self::open(Cart::InPlace(page))
    }

    /// Opens a typed payload that was put together from several rows, and so is a copy already.
    ///
    /// # Errors
    /// As those of [`Self::from_page`].
    pub(crate) fn from_assembled(payload: Bytes) -> Result<Self> {
        Self::open(Cart::Assembled(payload))
    }

    fn open(cart: Cart) -> Result<Self> {
        let payload = match &cart {
            Cart::InPlace(page) => page.body(),
            Cart::Assembled(bytes) => bytes,
            Cart::Copied(_) => &[],
        };
        let (envelope, archive) = Envelope::split(payload).map_err(refuse::<T>)?;
        envelope.expect(&expected::<T>(archive.len())?).map_err(refuse::<T>)?;

        let address = archive.as_ptr().addr();
        let cart = Arc::new(cart);
        if address.is_multiple_of(align_of::<Archived<T>>()) {
            match Self::attach(Arc::clone(&cart)) {
                Ok(value) => return Ok(value),
                // Every part is aligned there: a copy would fail as well.
                Err(error) if address.is_multiple_of(ALIGNMENT_MAX) => return Err(malformed::<T>(&error)),
                Err(_) => {}
            }
        }
        let mut copy = AlignedVec::new();
        copy.extend_from_slice(cart.archive());
        Self::attach(Arc::new(Cart::Copied(copy))).map_err(|error| malformed::<T>(&error))
    }

    fn attach(cart: Arc<Cart>) -> std::result::Result<Self, rancor::Error> {
        Yoke::try_attach_to_cart(cart, |cart| rkyv::access::<Archived<T>, rancor::Error>(cart.archive()))
            .map(|archived| Self { archived })
    }

    /// Tells whether the value is read where the store keeps it, or in a copy.
    #[must_use]
    pub fn placement(&self) -> Placement {
        match **self.archived.backing_cart() {
            Cart::InPlace(_) => Placement::InPlace,
            Cart::Assembled(_) | Cart::Copied(_) => Placement::Copied,
        }
    }

    /// Makes a value of `T` again.
    ///
    /// # Errors
    /// [`ErrorKind::TypeMismatch`] where the type does not accept what is stored.
    pub fn deserialize(&self) -> Result<T>
    where
        T::Archived: Deserialize<T, HighDeserializer<rancor::Error>>,
    {
        rkyv::deserialize::<T, rancor::Error>(&**self).map_err(|error| {
            let what = format!("{} cannot be made of what is stored: {error}", type_name::<T>());
            Error::new(ErrorKind::TypeMismatch { what })
        })
    }
}

impl<T: Loadable> Deref for TypedValue<T> {
    type Target = T::Archived;

    fn deref(&self) -> &T::Archived {
        self.archived.get()
    }
}

impl<T: Loadable> Clone for TypedValue<T> {
    fn clone(&self) -> Self {
        Self { archived: self.archived.clone() }
    }
}

impl<T: Loadable> fmt::Debug for TypedValue<T>
where
    T::Archived: fmt::Debug,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

/// Archives a value, with its envelope in front.
///
/// The bytes begin at an address divisible by 16, and are not copied once they are archived.
///
/// # Errors
/// [`ErrorKind::Serialization`] where the type's archived form has an alignment of more than 16 bytes, or the
/// value cannot be archived.
pub(crate) fn archive<T: Storable>(value: &T) -> Result<Bytes> {
    let fail = |what: String| {
        Error::new(ErrorKind::Serialization {
            format: "rkyv".to_owned(),
            type_name: type_name::<T>().to_owned(),
            what,
        })
    };
    // The place of the envelope is kept free: positions, and so alignments, count from the beginning of the buffer.
    let mut buffer = AlignedVec::new();
    buffer.resize(ENVELOPE_LENGTH, 0);
    let expected = expected::<T>(0)?;
    let mut buffer =
        to_bytes_in::<_, rancor::Error>(value, buffer).map_err(|error| fail(error.to_string()))?;
    let archive_length = buffer.len().saturating_sub(ENVELOPE_LENGTH) as u64;
    let front = buffer.first_chunk_mut::<ENVELOPE_LENGTH>();
    let front = front.ok_or_else(|| fail("the archive lost its envelope".to_owned()))?;
    *front = Envelope { archive_length, ..expected }.encode();
    Ok(Bytes::from_owner(buffer))
}

/// Gives the envelope that this build writes in front of an archive of this type.
fn expected<T: Archive>(archive_length: usize) -> Result<Envelope> {
    let (size, alignment) = (size_of::<T::Archived>(), align_of::<T::Archived>());
    let fits = u16::try_from(alignment).ok().filter(|alignment| *alignment <= ENVELOPE_ALIGNMENT_MAX);
    let Some(alignment) = fits else {
        return Err(Error::new(ErrorKind::Serialization {
            format: "rkyv".to_owned(),
            type_name: type_name::<T>().to_owned(),
            what: format!(
                "its archived form is aligned to {alignment} bytes, more than {ENVELOPE_ALIGNMENT_MAX}"
            ),
        }));
    };
    Ok(Envelope {
        rkyv_format: RKYV_FORMAT,
        byte_order: byte_order(),
        pointer_width: pointer_width(),
        alignment,
        fingerprint: type_fingerprint(type_name::<T>(), size, usize::from(alignment)),
        archive_length: archive_length as u64,
    })
}

/// Tells the order of bytes that this build of rkyv writes: its features decide, whoever in the build set them.
fn byte_order() -> ByteOrder {
    static FOUND: OnceLock<ByteOrder> = OnceLock::new();
    *FOUND.get_or_init(|| match rkyv::to_bytes::<rancor::Error>(&1_u32) {
        Ok(bytes) if bytes.first() == Some(&0) => ByteOrder::Big,
        _ => ByteOrder::Little,
    })
}

/// Gives the width in bits of the relative pointers of this build of rkyv, which is that of its `usize`.
const fn pointer_width() -> u8 {
    match size_of::<Archived<usize>>() {
        2 => 16,
        4 => 32,
        _ => 64,
    }
}

fn refuse<T>(error: EnvelopeError) -> Error {
    let what = format!("{}: {error}", type_name::<T>());
    match error {
        EnvelopeError::Malformed { .. } => Error::new(ErrorKind::Corrupt { what }),
        _ => Error::new(ErrorKind::TypeMismatch { what }),
    }
}

fn malformed<T>(error: &rancor::Error) -> Error {
    let what = format!("a typed payload is no archive of {}: {error}", type_name::<T>());
    Error::new(ErrorKind::Corrupt { what })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Clone, PartialEq, Archive, Serialize, Deserialize)]
    struct Menu {
        name: String,
        dishes: Vec<(u8, Option<u64>)>,
        prices: Vec<u32>,
    }

    #[derive(Debug, Clone, PartialEq, Archive, Serialize, Deserialize)]
    struct Ledger {
        total: u128,
        rows: Vec<u64>,
    }

    /// The root has less alignment than what it points to.
    #[derive(Debug, Clone, PartialEq, Archive, Serialize, Deserialize)]
    struct Wide(Vec<u128>);

    #[derive(Debug, Clone, PartialEq, Archive, Serialize, Deserialize)]
    struct Letters([u8; 5]);

    #[derive(Debug, Clone, PartialEq, Archive, Serialize, Deserialize)]
    struct Nothing;

    /// A page whose body begins at any address.
    struct Page {
        memory: AlignedVec<16>,
        offset: usize,
    }

    impl PayloadPage for Page {
        fn body(&self) -> &[u8] {
            &self.memory[self.offset..]
        }
    }

    fn page(payload: &[u8], offset: usize) -> Box<dyn PayloadPage> {
        let mut memory = AlignedVec::new();
        memory.resize(offset, 0xEE);
        memory.extend_from_slice(payload);
        Box::new(Page { memory, offset })
    }

    fn menu() -> Menu {
        Menu {
            name: "lunch, the long one of a Sunday".to_owned(),
            dishes: vec![(1, Some(2)), (3, None)],
            prices: vec![1250, 900],
        }
    }

    /// Opens at every address mod 16, which must be in place exactly at the multiples of `alignment`.
    fn at_every_offset<T>(value: &T, alignment: usize)
    where
        T: Storable + Loadable + PartialEq + fmt::Debug,
        T::Archived: Deserialize<T, HighDeserializer<rancor::Error>>,
    {
        let payload = archive(value).unwrap();
        assert!(payload.as_ptr().addr().is_multiple_of(16));
        for offset in 0..16 {
            let typed = TypedValue::<T>::from_page(page(&payload, offset)).unwrap();
            let expected = if offset % alignment == 0 { Placement::InPlace } else { Placement::Copied };
            assert_eq!((typed.placement(), offset), (expected, offset));
            assert_eq!(&typed.deserialize().unwrap(), value);
            let clone = typed.clone();
            drop(typed);
            assert_eq!(&clone.deserialize().unwrap(), value);
        }
    }

    #[test]
    fn a_value_is_read_at_every_address_and_in_place_where_it_can_be() {
        at_every_offset(&menu(), 8);
        at_every_offset(&Ledger { total: u128::MAX - 1, rows: vec![1, 2, 3] }, 16);
        at_every_offset(&Wide(vec![1, 2]), 16);
        at_every_offset(&Letters(*b"abcde"), 1);
        at_every_offset(&Nothing, 1);
        at_every_offset(&7_u32, 4);
        at_every_offset(&"soup".repeat(10), 4);
        assert_eq!((align_of::<ArchivedWide>(), align_of::<ArchivedLedger>()), (4, 16));
    }

    #[test]
    fn fields_are_read_without_deserialising() {
        let payload = archive(&menu()).unwrap();
        let typed = TypedValue::<Menu>::from_page(Box::new(payload.clone())).unwrap();
        assert_eq!(typed.placement(), Placement::InPlace);
        assert_eq!(
            (typed.name.as_str(), typed.prices.len(), typed.prices[0].to_native()),
            (menu().name.as_str(), 2, 1250)
        );
        assert!(payload.as_ptr_range().contains(&typed.name.as_ptr()));
        let assembled = TypedValue::<Menu>::from_assembled(payload.clone()).unwrap();
        assert_eq!(assembled.placement(), Placement::Copied);
        assert!(payload.as_ptr_range().contains(&assembled.name.as_ptr()));
    }

    #[test]
    fn another_type_or_no_type_is_a_mismatch() {
        let payload = archive(&menu()).unwrap();
        let mismatch = |error: Error| matches!(error.kind(), ErrorKind::TypeMismatch { .. });
        assert!(mismatch(TypedValue::<Ledger>::from_page(page(&payload, 0)).err().unwrap()));
        assert!(mismatch(TypedValue::<Wide>::from_page(page(&payload, 0)).err().unwrap()));
        for other in [&b""[..], b"LTYP", &[0; 200]] {
            assert!(mismatch(TypedValue::<Menu>::from_page(page(other, 0)).err().unwrap()));
        }
        let (envelope, body) = Envelope::split(&payload).unwrap();
        for other in [
            Envelope { rkyv_format: 7, ..envelope.clone() },
            Envelope { byte_order: ByteOrder::Big, ..envelope.clone() },
            Envelope { pointer_width: 64, ..envelope.clone() },
            Envelope { alignment: 16, ..envelope },
        ] {
            let other = [&other.encode()[..], body].concat();
            assert!(mismatch(TypedValue::<Menu>::from_page(page(&other, 0)).err().unwrap()));
        }
    }

    #[test]
    fn this_build_writes_what_rkyv_writes_by_default() {
        assert_eq!((byte_order(), pointer_width()), (ByteOrder::Little, 32));
    }

    #[test]
    fn an_alignment_of_more_than_sixteen_is_refused() {
        #[derive(Archive, Serialize)]
        #[rkyv(attr(repr(align(32))))]
        struct Block {
            number: u32,
        }
        let error = archive(&Block { number: 1 }).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Serialization { .. }), "{error}");
        assert!(error.to_string().contains("32"), "{error}");
    }

    #[test]
    fn every_truncation_and_every_flipped_bit_gives_a_value_or_an_error() {
        let payload = archive(&menu()).unwrap();
        for length in 0..payload.len() {
            for offset in [0, 4] {
                assert!(TypedValue::<Menu>::from_page(page(&payload[..length], offset)).is_err(), "{length}");
            }
        }
        for bit in 0..payload.len() * 8 {
            let mut flipped = payload.to_vec();
            flipped[bit / 8] ^= 1 << (bit % 8);
            for offset in [0, 3, 8] {
                match TypedValue::<Menu>::from_page(page(&flipped, offset)) {
                    Ok(typed) => drop(typed.deserialize()),
                    Err(error) => assert!(
                        matches!(error.kind(), ErrorKind::Corrupt { .. } | ErrorKind::TypeMismatch { .. }),
                        "{error}"
                    ),
                }
            }
        }
    }

    #[test]
    fn typed_values_move_between_threads() {
        fn both<T: Send + Sync + Clone>() {}
        both::<TypedValue<Menu>>();
    }
}
