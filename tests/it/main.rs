//! Integration tests: the real kernel, real programs, real clients. They need root, and say so.

mod budget;
mod bypass;
mod control;
mod deadline;
mod drift;
mod http2;
mod input;
mod kernel;
mod leftovers;
mod metadata;
mod names;
mod prove;
mod proxy;
mod resolver;
mod restart;
mod shared;
mod startup;
mod surface;
mod token;
mod window;
mod workloads;
