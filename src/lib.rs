//! Postlane: one SQL `INSERT` becomes one signed request to JoinChat's send API, in order.
//!
//! The path of a job, each step a module:
//!
//! 1. a producer inserts a row into `send_jobs` ([`job`], and [`postlane_message`] for one in Rust);
//! 2. the ledger takes that row's mark and leases the lane for the job; the lane's row, committed, records
//!    the attempt ([`ledger`], [`store`]); the rules then check the job ([`postlane_message::validate`]);
//! 3. a sender signs and sends it ([`deliver`], [`sign`], [`http`]);
//! 4. the answer is judged and the next step decided ([`judge`], [`retry`]);
//! 5. the ledger records that in its next commit, and the lane continues ([`ledger`]).
//!
//! [`worker`] starts and stops all of that; [`sweep`] prunes and heals; [`events`] is the only
//! place where what happens becomes a log line or a metric. [`cli`] and [`admin`] are the faces.

// nouns: plain data, no I/O
pub mod attempt;
pub mod clock;
pub mod job;
pub mod scope;

// rules: synchronous, no I/O, no logging
pub mod breaker;
pub mod judge;
pub mod pace;
pub mod retry;
pub mod secrets;
pub mod sign;
pub mod turn;

// edges: I/O, and they do not know each other
pub mod http;
pub mod store;

// motion
pub mod deliver;
pub mod deliveries;
pub mod events;
pub mod keyring;
pub mod ledger;
pub mod sweep;
pub mod why;
pub mod worker;

// faces
pub mod admin;
pub mod clean;
pub mod cli;
pub mod config;
pub mod service;
