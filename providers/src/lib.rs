//! Clouds.
