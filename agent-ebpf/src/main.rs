//! Muster's kernel programs.
//!
//! One file per kind of event holds its body; `common.rs`, `lsm.rs` and `tracepoint.rs` are the hooks, thin shells by
//! flavour (`fentry.rs` would stand beside them). The agent finds the programs by the table in
//! `muster_common::programs`.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

mod atomic;
mod common;
mod connect;
mod device;
mod digest;
mod draft;
mod emit;
mod exec;
mod file;
mod file_info;
mod hash_limit;
mod layout;
mod library;
mod lsm;
mod mapped;
mod overlay;
mod path;
mod process;
mod task;
mod tracepoint;
mod writers;

#[cfg(not(test))]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
