//! When files were last written, as the kernel programs saw it.

use std::fmt;

use crate::event::Inode;

type Ask = Box<dyn Fn(Inode) -> Option<u64> + Send>;

/// Answers when anything was last written under an inode's number.
pub struct Order(Ask);

impl Order {
    /// `ask` gives nanoseconds since boot; `None` where nothing is remembered.
    pub fn new(ask: impl Fn(Inode) -> Option<u64> + Send + 'static) -> Self {
        Self(Box::new(ask))
    }

    /// The last time that the file was opened for write, truncated, mapped to be written, or closed by its last writer.
    pub fn last_written(&self, inode: Inode) -> Option<u64> {
        (self.0)(inode)
    }
}

impl fmt::Debug for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Order")
    }
}
