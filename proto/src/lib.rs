//! Muster's gRPC interface: the package `muster.v1`, generated from `muster/v1/muster.proto`.

/// Messages and services of `muster.v1`.
#[allow(missing_docs, clippy::all, reason = "generated; the .proto file carries the comments")]
pub mod v1 {
    tonic::include_proto!("muster.v1");

    /// The encoded file descriptor set, for the reflection service.
    pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/muster.v1.bin"));
}
