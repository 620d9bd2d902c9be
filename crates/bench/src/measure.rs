//! What is read beside a run, from the kernel and from the databases.

pub mod costs;
pub mod log;
pub mod proc;
pub mod spread;
