//! Where bytes are between a read and a write.

use std::cell::RefCell;

/// Bytes that fit.
pub(super) const SIZE: usize = 128 * 1024;

/// Most empty buffers that a thread keeps.
const MOST_SPARE: usize = 4;

thread_local! {
    /// For bytes that stay only until the end of a task's turn, as a rule.
    static SPARE: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
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

/// An empty buffer with room for [`SIZE`] bytes.
pub(super) fn buffer() -> Vec<u8> {
    let spare = SPARE.with_borrow_mut(Vec::pop);
    spare.unwrap_or_else(|| Vec::with_capacity(SIZE))
}

/// Gives a buffer back that is not needed any more.
pub(super) fn give_back(mut buffer: Vec<u8>) {
    if (SIZE..=2 * SIZE).contains(&buffer.capacity()) {
        buffer.clear();
        SPARE.with_borrow_mut(|spare| {
            if spare.len() < MOST_SPARE {
                spare.push(buffer);
            }
        });
    }
}
