#![no_std]
//! Contract.
