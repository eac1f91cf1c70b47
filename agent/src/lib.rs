//! The library of the `muster` agent. `docs/ARCHITECTURE.md` has the map.

// What unit tests share with the other tests names the library as those do.
#[cfg(test)]
extern crate self as muster;

pub mod app;
pub mod attestation;
pub mod causes;
pub mod cli;
pub mod config;
mod counted;
pub mod devices;
pub mod digest;
pub mod event;
pub mod exceptions;
pub mod feed;
pub mod finding;
mod glob;
pub mod guarded;
mod host_root;
pub mod identity;
pub mod images;
pub mod judge;
mod mark;
mod memory;
pub mod metrics;
pub mod mounts;
mod new_file;
pub mod order;
pub mod origin;
pub mod packages;
pub mod part;
mod proc;
#[cfg(test)]
#[path = "../tests/common/python.rs"]
mod python;
pub mod recent;
pub mod record;
pub mod sbom;
pub mod sensor;
mod unread;
pub mod verdict;
pub mod workload;
