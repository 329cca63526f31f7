//! Unmodified clients of three kinds, each operation in a window and outside of it, and what they show: the document is made from what happens here.
//!
//! They start with an empty environment but for `PATH`, `HOME` and the one variable that says whom to trust; credentials and project they
//! find by themselves.

mod bq;
mod cell;
mod document;
mod node;
mod python;
pub(crate) mod situations;

use cell::{Cell, Said};
use situations::{Run, Situation, fill};
