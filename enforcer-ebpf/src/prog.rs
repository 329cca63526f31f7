//! The programs. Each hook reads its context, looks up what is known, lets [`enforcer_ebpf::decide`] decide, and acts.

#![expect(
    unreachable_pub,
    reason = "entry points are exported by name; nothing links against this binary"
)]

mod astray;
mod begun;
mod connect;
mod egress;
mod maps;
mod names;
mod packet;
mod security;
mod sockaddr;
mod socket;
mod sockops;
mod sockopt;
mod stream;
mod task;
mod uplink;
