//! The daemon and its command line: they perform what `enforcer-proto` decides.
//!
//! Code map: [`cli`] parses and prints; [`app`] starts everything in order; [`engine`] owns the ledger, the log and the kernel's windows;
//! [`kernel`] attaches the programs; [`control`] serves people and agents; [`proxy`] and [`bigquery`] judge and forward requests;
//! [`token`] has the only credentials; [`dns`] keeps the protected addresses true and answers agents' questions for names; [`metadata`] stands in for the metadata server;
//! [`notify`] tells others of what is on record; [`client_setup`] makes clients trust the proxy;
//! [`prove`] tries every way around them; [`clock`] is the only reader of clocks.

pub mod abilities;
pub mod accept;
pub mod apart;
pub mod app;
pub mod atomic_file;
pub mod audit;
pub mod bigquery;
pub mod callers;
pub mod causes;
pub mod cli;
pub mod client_setup;
pub mod clock;
pub mod config;
pub mod control;
pub mod dns;
pub mod engine;
pub mod executables;
pub mod gcp;
pub mod helper;
pub mod kernel;
pub mod keyfile;
pub mod loopback;
pub mod metadata;
pub mod notify;
pub mod old_flows;
pub mod origin;
pub mod pace;
pub mod prove;
pub mod proxy;
mod random;
pub mod roots;
pub mod search;
mod shared;
pub mod signature;
pub mod sockopt;
pub mod subordinate;
pub mod tally;
pub mod token;
pub mod upstream;
pub mod workload;
pub mod workloads;
