//! The `postlane` command.
fn main() {}
