//! Decisions of Spillway, pure.
