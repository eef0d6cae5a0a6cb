//! Measurements of larder. `cargo bench -p larder-benches --bench targets` prints the figures of the README;
//! `--bench layers` measures tasks and graphs; `--bench operations` measures every public operation with criterion.
