//! BigQuery's storage API, purely: gRPC's frames, the messages that are understood, and statuses. No socket, no clock, no token here.
//!
//! A message that holds anything unknown, or the same thing twice, is refused; what is sent on is written anew from what was understood.

pub mod frame;
pub mod messages;
pub mod restriction;
pub mod routing;
pub mod shape;
pub mod status;
pub mod wanted;
