//! What is told to whoever traces the application, through the `tracing` crate. Without the feature of that name
//! nobody is told, and nothing depends on it: the one place that knows.

/// A span around an operation, until it is dropped.
pub(crate) struct Span {
    #[cfg(feature = "tracing")]
    _entered: tracing::span::EnteredSpan,
}

/// Begins the span of a public operation, with the key or place that it is about.
#[inline]
pub(crate) fn operation(operation: &'static str, place: &str) -> Span {
    #[cfg(not(feature = "tracing"))]
    let _ = (operation, place);
    Span {
        #[cfg(feature = "tracing")]
        _entered: tracing::debug_span!("larder", operation, place).entered(),
    }
}

/// Tells of an operation that took longer than the threshold.
pub(crate) fn slow(operation: &'static str, place: &str, micros: i64) {
    #[cfg(feature = "tracing")]
    tracing::warn!(operation, place, micros, "slow operation");
    #[cfg(not(feature = "tracing"))]
    let _ = (operation, place, micros);
}

/// Tells of something that went wrong where nobody could be given an error, or only later.
pub(crate) fn trouble(what: &str, error: Option<&crate::error::Error>) {
    #[cfg(feature = "tracing")]
    match error {
        Some(error) => tracing::warn!(%error, "{what}"),
        None => tracing::warn!("{what}"),
    }
    #[cfg(not(feature = "tracing"))]
    let _ = (what, error);
}

/// Tells of something worth knowing.
pub(crate) fn note(what: &str, count: usize) {
    #[cfg(feature = "tracing")]
    tracing::info!(count, "{what}");
    #[cfg(not(feature = "tracing"))]
    let _ = (what, count);
}
