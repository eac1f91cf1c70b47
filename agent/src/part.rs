//! State of one thread that several tasks of it use in turn.

use std::cell::RefCell;

/// Lent to one closure at a time, so that no task that waits for something keeps it from the others.
#[derive(Debug, Default)]
pub struct Part<T>(RefCell<T>);

impl<T> Part<T> {
    /// Of this state.
    pub const fn new(part: T) -> Self {
        Self(RefCell::new(part))
    }

    /// Lends it.
    ///
    /// # Panics
    /// The closure, or what it calls, lends the same part again.
    pub fn with<R>(&self, use_it: impl FnOnce(&mut T) -> R) -> R {
        use_it(&mut self.0.borrow_mut())
    }
}
