//! The domain of the enforcer, pure: what may be asked, who may decide, what a window admits, what is written down.
//!
//! Nothing here reads a clock, does I/O, is async, or iterates a hash map. Time arrives as [`time::Now`], sampled once per event by the
//! caller. The daemon performs what these types decide; the console shows what they say.
//!
//! Code map: [`id`], [`time`], [`principal`], [`scope`] are the nouns; [`policy`] is the operator's standing rules; [`query`] is what one
//! BigQuery request touches; [`ledger`] holds requests and grants and decides; [`admission`] judges one query against one grant;
//! [`refusal`] is every "no"; [`event`] and [`audit`] are the record and its chain; [`wire`] is the control socket.
#![forbid(unsafe_code)]

pub mod admission;
pub mod audit;
pub mod event;
pub mod id;
pub mod ledger;
pub mod policy;
pub mod principal;
pub mod query;
pub mod refusal;
pub mod scope;
pub mod text;
pub mod time;
pub mod wire;
