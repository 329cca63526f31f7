//! The proxy: what agents' redirected connections meet.

pub mod authority;
pub mod tls;
