//! kontiki
fn main() {}
