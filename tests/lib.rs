//! Tests of the whole live in `it/`, benchmarks in `benches/`.
