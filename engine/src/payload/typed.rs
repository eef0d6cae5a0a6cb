//! Typed payloads: values in rkyv's archived form, read where they lie.
//!
//! An archive is validated once, when it is opened; after that reading a field is reading memory. No unsafe code:
//! rkyv checks, and yoke keeps the reference and what it points into together.

use std::sync::Arc;

use bytes::Bytes;
use larder_format::{ByteOrder, ENVELOPE_ALIGNMENT_MAX, Envelope, RKYV_FORMAT, type_fingerprint};
use rkyv::api::high::{HighDeserializer, HighSerializer, HighValidator};
use rkyv::bytecheck::CheckBytes;
use rkyv::rancor;
use rkyv::ser::allocator::ArenaHandle;
use rkyv::util::AlignedVec;
use rkyv::{Archive, Deserialize, Serialize};
use yoke::Yoke;

use crate::error::{Error, ErrorKind, Result};

/// A value that can be put as a typed payload: any type that derives rkyv's `Archive` and `Serialize`.
pub trait Storable:
    Archive + for<'a> Serialize<HighSerializer<AlignedVec, ArenaHandle<'a>, rancor::Error>>
{
}

impl<T> Storable for T where
    T: Archive + for<'a> Serialize<HighSerializer<AlignedVec, ArenaHandle<'a>, rancor::Error>>
{
}

/// A type as which a typed payload can be read: any type that derives rkyv's `Archive`.
pub trait Loadable:
    Archive<Archived: for<'a> CheckBytes<HighValidator<'a, rancor::Error>> + 'static>
{
}

impl<T> Loadable for T where
    T: Archive<Archived: for<'a> CheckBytes<HighValidator<'a, rancor::Error>> + 'static>
{
}

/// A payload that lies in a page, and stays there while this is held.
pub(crate) trait PayloadPage: Send + Sync + 'static {
    fn body(&self) -> &[u8];
}

impl PayloadPage for Bytes {
    fn body(&self) -> &[u8] {
        self
    }
}

/// Where a typed value is read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placement {
    /// From where it lies: a page of the file, or memory that is shared.
    InPlace,
    /// From one aligned copy, because it does not lie aligned.
    Copied,
}

enum Cart {
    InPlace(Box<dyn PayloadPage>),
    Copied(AlignedVec),
}

impl Cart {
    fn payload(&self) -> &[u8] {
        match self {
            Self::InPlace(page) => page.body(),
            Self::Copied(copy) => copy,
        }
    }
}

/// A typed value, validated and read in place: it gives access to the archived form of `T`.
pub struct TypedValue<T: Loadable> {
    value: Yoke<&'static T::Archived, Arc<Cart>>,
}

impl<T: Loadable> Clone for TypedValue<T> {
    fn clone(&self) -> Self {
        Self { value: self.value.clone() }
    }
}

impl<T: Loadable> std::ops::Deref for TypedValue<T> {
    type Target = T::Archived;

    fn deref(&self) -> &T::Archived {
        self.value.get()
    }
}

impl<T: Loadable> std::fmt::Debug for TypedValue<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TypedValue").field("placement", &self.placement()).finish_non_exhaustive()
    }
}

impl<T: Loadable> TypedValue<T> {
    /// Opens a payload that lies somewhere, copying it once where it does not lie aligned.
    pub(crate) fn open(page: impl PayloadPage) -> Result<Self> {
        let (envelope, archive) = Envelope::split(page.body()).map_err(|error| mismatch(&error))?;
        envelope.expect(&build_envelope::<T>(envelope.archive_length)?).map_err(|error| mismatch(&error))?;
        let is_aligned = archive.as_ptr().align_offset(align_of::<T::Archived>()) == 0;
        let cart = if is_aligned {
            Cart::InPlace(Box::new(page))
        } else {
            let mut copy = AlignedVec::with_capacity(page.body().len());
            copy.extend_from_slice(page.body());
            Cart::Copied(copy)
        };
        let value = Yoke::try_attach_to_cart(Arc::new(cart), |cart: &Cart| {
            let (_, archive) = Envelope::split(cart.payload()).map_err(|error| mismatch(&error))?;
            rkyv::access::<T::Archived, rancor::Error>(archive).map_err(|error| {
                Error::from(ErrorKind::Corrupt { what: format!("a typed payload: {error}") })
            })
        })?;
        Ok(Self { value })
    }

    /// Tells whether the value is read in place or from a copy.
    #[must_use]
    pub fn placement(&self) -> Placement {
        match self.value.backing_cart().as_ref() {
            Cart::InPlace(_) => Placement::InPlace,
            Cart::Copied(_) => Placement::Copied,
        }
    }

    /// Makes the value that was put.
    ///
    /// # Errors
    /// [`Serialization`](ErrorKind::Serialization) where the type's own conversion fails.
    pub fn deserialize(&self) -> Result<T>
    where
        T::Archived: Deserialize<T, HighDeserializer<rancor::Error>>,
    {
        let archived: &T::Archived = self.value.get();
        rkyv::deserialize::<T, rancor::Error>(archived).map_err(|error| unstorable::<T>(error.to_string()))
    }
}

/// Turns a value into a typed payload: an envelope, then the archive.
pub(crate) fn archive<T: Storable>(value: &T) -> Result<Bytes> {
    let archive =
        rkyv::to_bytes::<rancor::Error>(value).map_err(|error| unstorable::<T>(error.to_string()))?;
    let envelope = build_envelope::<T>(archive.len() as u64)?.encode();
    Ok([envelope.as_slice(), &archive].concat().into())
}

/// The envelope that this build writes for a type.
fn build_envelope<T: Archive>(archive_length: u64) -> Result<Envelope> {
    let alignment = u16::try_from(align_of::<T::Archived>())
        .ok()
        .filter(|alignment| *alignment <= ENVELOPE_ALIGNMENT_MAX)
        .ok_or_else(|| unstorable::<T>(format!("its alignment is greater than {ENVELOPE_ALIGNMENT_MAX}")))?;
    Ok(Envelope {
        rkyv_format: RKYV_FORMAT,
        byte_order: build_byte_order()?,
        pointer_width: u8::try_from(size_of::<rkyv::Archived<usize>>() * 8).unwrap_or(0),
        alignment,
        fingerprint: type_fingerprint(
            std::any::type_name::<T>(),
            size_of::<T::Archived>(),
            align_of::<T::Archived>(),
        ),
        archive_length,
    })
}

/// The byte order is a feature of rkyv that the whole build shares: the bytes of a number tell.
fn build_byte_order() -> Result<ByteOrder> {
    let bytes =
        rkyv::to_bytes::<rancor::Error>(&1u32).map_err(|error| unstorable::<u32>(error.to_string()))?;
    Ok(if bytes.first() == Some(&1) { ByteOrder::Little } else { ByteOrder::Big })
}

fn mismatch(error: &larder_format::EnvelopeError) -> Error {
    ErrorKind::TypeMismatch { what: error.to_string() }.into()
}

fn unstorable<T>(what: String) -> Error {
    let type_name = std::any::type_name::<T>().to_owned();
    ErrorKind::Serialization { format: "rkyv".to_owned(), type_name, what }.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize, Debug, PartialEq)]
    struct Menu {
        soup: String,
        prices: Vec<u64>,
    }

    #[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize, Debug, PartialEq)]
    struct Guests(u32);

    fn menu() -> Menu {
        Menu { soup: "leek".into(), prices: vec![3, 5, 8] }
    }

    #[test]
    fn t26_every_offset_gives_the_value_and_says_whether_it_was_copied() {
        let payload = archive(&menu()).unwrap();
        for offset in 0..16 {
            let mut buffer = AlignedVec::<16>::new();
            buffer.extend_from_slice(&vec![0; offset]);
            buffer.extend_from_slice(&payload);
            let whole = Bytes::from_owner(Owned(buffer));
            let value = TypedValue::<Menu>::open(whole.slice(offset..)).unwrap();
            assert_eq!(value.prices[2], 8);
            assert_eq!(value.deserialize().unwrap(), menu());
            let expected = if offset % 8 == 0 { Placement::InPlace } else { Placement::Copied };
            assert_eq!(value.placement(), expected, "offset {offset}");
        }
    }

    struct Owned(AlignedVec<16>);
    impl AsRef<[u8]> for Owned {
        fn as_ref(&self) -> &[u8] {
            &self.0
        }
    }

    #[test]
    fn another_type_is_refused_and_damage_never_panics() {
        let payload = archive(&menu()).unwrap();
        let error = TypedValue::<Guests>::open(payload.clone()).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::TypeMismatch { .. }), "{error}");
        for length in 0..payload.len() {
            assert!(TypedValue::<Menu>::open(payload.slice(..length)).is_err());
        }
        for bit in 0..payload.len() * 8 {
            let mut damaged = payload.to_vec();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let _ = TypedValue::<Menu>::open(Bytes::from(damaged)).map(|value| value.deserialize());
        }
    }
}
