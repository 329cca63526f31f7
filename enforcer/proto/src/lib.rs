//! The domain of the enforcer, pure: what may be asked, who may decide, what a window admits, what is written down.
//!
//! Nothing here reads a clock, does I/O, is async, or iterates a hash map. Time arrives as [`time::Now`], sampled once per event by the
//! caller. The daemon performs what these types decide; the console shows what they say.
//!
//! Code map: [`id`], [`time`], [`principal`], [`scope`] are the nouns; [`policy`] is the operator's standing rules; [`query`] is what one
//! BigQuery request touches; [`ledger`] holds requests and grants and decides, [`asking`] is what a request made of a query says of it; [`admission`]
//! judges one query against one grant;
//! [`refusal`] is every "no"; [`event`] and [`audit`] are the record and its chain, [`checkpoint`] what is signed of it, [`search`] what is looked
//! for in it, [`notice`] what is told elsewhere of it, [`sentence`] how people read it, [`size`] how they read bytes, [`why`] the facts behind it; [`check`] what a look at the way to
//! Google found; [`wire`] is the control socket.
#![forbid(unsafe_code)]

pub mod admission;
pub mod asking;
pub mod audit;
pub mod bucket;
pub mod check;
pub mod checkpoint;
pub mod event;
pub mod id;
pub mod ledger;
pub mod notice;
pub mod policy;
pub mod principal;
pub mod query;
pub mod refusal;
pub mod scope;
pub mod search;
pub mod sentence;
pub mod signed;
pub mod size;
pub mod text;
pub mod time;
pub mod why;
pub mod wire;
