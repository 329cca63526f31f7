//! The daemon: it performs what `enforcer-proto` decides.
//!
//! Code map: [`clock`] is the only reader of clocks; [`engine`] owns the ledger, the log and the kernel's windows.

pub mod audit;
pub mod clock;
pub mod config;
pub mod control;
pub mod engine;
pub mod kernel;
pub mod sockopt;
pub mod workload;
