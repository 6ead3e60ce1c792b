//! Where bytes are between a read and a write.

use std::cell::RefCell;

/// Bytes that fit.
pub(super) const SIZE: usize = 64 * 1024;

thread_local! {
    /// Never held while waiting, so one for each thread does: connections own no buffer, but for
    /// the rest that their reader had no room for.
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Runs `use_it` with this thread's buffer.
pub(super) fn with_scratch<T>(use_it: impl FnOnce(&mut [u8]) -> T) -> T {
    SCRATCH.with_borrow_mut(|scratch| {
        scratch.resize(SIZE, 0);
        use_it(scratch)
    })
}
