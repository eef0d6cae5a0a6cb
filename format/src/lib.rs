//! What the bytes of a larder file mean. Pure: no I/O, no clock, no redb, no unsafe code.

mod checksum;
mod envelope;
mod key;
mod limits;
mod pattern;
mod policy;
mod record;
mod registry;
mod status;
mod tuple;
mod writeset;

pub use registry::{
    Claim, Format, FormatError, FormatName, Inferred, REGISTRY_ENTRIES_MAX, REGISTRY_LEN_MAX,
    REGISTRY_NAME_LEN_MAX, Registry, RegistryError, SNIFF_LEN, Strictness, Verdict, Warning,
};
