//! Root.
fn main() {}
