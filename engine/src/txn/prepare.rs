//! What a caller can do before it asks for the sequencer: hash, compress, cut, and stage what is large.

use std::io::Read;
use std::sync::Arc;

use bytes::Bytes;
use larder_format::{AbsentReason, Claim, ContentHash, Key};

use crate::documents::Documents;
use crate::edit::{Draft, DraftPayload};
use crate::error::{Error, ErrorKind, Result};
use crate::guard::check_size;
use crate::larder::Shared;
use crate::payload::{
    CONTIGUOUS_LENGTH_MAX, HEAD_LENGTH, INLINE_LENGTH_MAX, PayloadWriter, Prepared, PreparedBody,
    STAGED_LENGTH_MIN, Spec, StagingSink, encode_small,
};

/// The payload of a draft, ready to be put.
pub(crate) enum Ready {
    Payload { prepared: Prepared, typed: Option<&'static str> },
    Absent(AbsentReason),
}

impl Ready {
    /// Gives about how many bytes it holds in memory: what is staged lies in the store.
    pub(crate) fn bytes_in_memory(&self) -> usize {
        match self {
            Self::Payload { prepared: Prepared(PreparedBody::Inline { payload, .. }), .. } => payload.len(),
            Self::Payload { prepared: Prepared(PreparedBody::Chunked { encoded, .. }), .. } => {
                encoded.chunks.iter().map(|(_, body)| body.len()).sum()
            }
            Self::Payload { prepared: Prepared(PreparedBody::Staged { .. }), .. } | Self::Absent(_) => 0,
        }
    }
}

/// Makes the payload of a draft ready.
pub(crate) fn prepare(
    shared: &Arc<Shared>,
    documents: &Documents,
    key: &Key,
    draft: &mut Draft,
) -> Result<Ready> {
    let payload = std::mem::replace(&mut draft.payload, DraftPayload::Absent(AbsentReason::NeverProduced));
    let (payload, typed) = match payload {
        DraftPayload::Absent(reason) => return Ok(Ready::Absent(reason)),
        DraftPayload::Prepared(prepared) => return Ok(Ready::Payload { prepared, typed: None }),
        DraftPayload::File(path) => {
            let failed = |error: std::io::Error| Error::from(ErrorKind::Source { after: 0 }).caused_by(error);
            let mut file = std::fs::File::open(&path).map_err(failed)?;
            let length = file.metadata().map_err(failed)?.len();
            check_size(documents, key, length)?;
            let prepared = prepare_reader(shared, documents, key, draft, &mut file, Some(length))?;
            return Ok(Ready::Payload { prepared, typed: None });
        }
        DraftPayload::Bytes(payload) => (payload, None),
        DraftPayload::Typed(payload, type_name) => (payload?, Some(type_name)),
    };
    check_size(documents, key, payload.len() as u64)?;
    let prepared = if payload.len() <= INLINE_LENGTH_MAX {
        inline(payload)
    } else if (payload.len() as u64) < STAGED_LENGTH_MIN
        || (typed.is_some() && payload.len() as u64 <= CONTIGUOUS_LENGTH_MAX)
    {
        let compress = typed.is_none() && is_compressible(documents, key, draft, &payload);
        let encoded = encode_small(&payload, compress, typed.is_some());
        let head = payload.slice(..payload.len().min(HEAD_LENGTH));
        Prepared(PreparedBody::Chunked { encoded, head })
    } else {
        let length = Some(payload.len() as u64);
        prepare_reader(shared, documents, key, draft, &mut payload.as_ref(), length)?
    };
    Ok(Ready::Payload { prepared, typed })
}

/// Makes what a reader gives ready, holding a few MiB of it at a time at most.
pub(crate) fn prepare_reader(
    shared: &Arc<Shared>,
    documents: &Documents,
    key: &Key,
    draft: &Draft,
    reader: &mut dyn Read,
    size_hint: Option<u64>,
) -> Result<Prepared> {
    shared.commit.check_writable()?;
    // The beginning decides whether it is small, and whether it is worth compressing.
    let mut head = Vec::with_capacity(INLINE_LENGTH_MAX + 1);
    let failed =
        |after: usize, error| Error::from(ErrorKind::Source { after: after as u64 }).caused_by(error);
    let ended = (&mut *reader).take(INLINE_LENGTH_MAX as u64 + 1).read_to_end(&mut head);
    ended.map_err(|error| failed(head.len(), error))?;
    check_size(documents, key, head.len() as u64)?;
    if head.len() <= INLINE_LENGTH_MAX {
        return Ok(inline(head.into()));
    }
    let limit = documents.limits.max_binary_size(key.encoded());
    let spec = Spec {
        size_hint,
        compress: is_compressible(documents, key, draft, &head),
        contiguous: false,
        limit: Some((limit.bytes, limit.by.to_string())),
    };
    let sink = StagingSink::new(Arc::clone(&shared.commit), shared.next_payload_id(), shared.clock.now());
    let mut writer = PayloadWriter::new(sink, spec);
    writer.write_all(&head)?;
    crate::payload::copy_from_reader(reader, &mut writer)?;
    head.truncate(HEAD_LENGTH);
    let (sink, written) = writer.finish()?;
    sink.finish(written, head.into())
}

fn inline(payload: Bytes) -> Prepared {
    let hash = ContentHash::of(&payload);
    Prepared(PreparedBody::Inline { payload, hash })
}

fn is_compressible(documents: &Documents, key: &Key, draft: &Draft, head: &[u8]) -> bool {
    let inferred = documents.registry().infer(&claim_of(key, draft), head);
    documents.is_compressible(&inferred.data_format)
}

/// What a draft and its key say about the format.
pub(crate) fn claim_of<'a>(key: &'a Key, draft: &'a Draft) -> Claim<'a> {
    Claim {
        extension: key.extension(),
        data_format: draft.data_format.as_deref(),
        media_type: draft.media_type.as_deref(),
        type_identifier: draft.type_identifier.as_deref(),
    }
}
