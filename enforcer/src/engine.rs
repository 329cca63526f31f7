//! The engine: one owner of the ledger, the windows in the kernel and the log.

mod handle;

pub use handle::{
    ClosedWindow, Engine, OpenWindow, OpenWindows, Outcome, Permit, QUEUE_MAX, Requester,
};
