//! The program `spillway`.
fn main() {}
