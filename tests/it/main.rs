//! Integration tests: the real kernel, real programs, real clients. They need root, and say so.

mod kernel;
mod window;
