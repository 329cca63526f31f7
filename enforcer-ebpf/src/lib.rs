//! The contract between the kernel programs and the daemon: the values in the maps, and the decision itself.
//!
//! `no_std`, no pointers, no padding, no enum or bool in a map value: what the kernel writes, the daemon reads byte by byte. The same
//! [`verdict::decide`] runs in the kernel, under proptest on the host, and in the daemon's fake kernel.
#![no_std]

pub mod address;
pub mod confine;
pub mod map;
pub mod opening;
pub mod record;
pub mod verdict;

pub use map::{Agent, Config, Counters, Endpoint, Window};
pub use opening::{Opening, OpeningKey};
pub use record::{Event, FlowKey, Origin, PortKey};
pub use verdict::{Facts, Reason, Verdict, decide};
