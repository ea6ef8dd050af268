//! What code under test holds in memory: the unit tests' allocator counts for each thread, while it is told to.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// What was allocated and not given back, while it was counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) bytes: i64,
    pub(crate) blocks: i64,
}

thread_local! {
    // Without a destructor and made at compile time: the allocator may look at any time.
    static HELD: Cell<Held> = const { Cell::new(Held { bytes: 0, blocks: 0 }) };
    /// The most bytes since somebody last asked.
    static PEAK: Cell<i64> = const { Cell::new(0) };
    static COUNTS: Cell<bool> = const { Cell::new(false) };
}

/// What is held by what this thread did while it counted.
pub(crate) fn held() -> Held {
    HELD.get()
}

/// The most bytes that were held since this was last asked.
pub(crate) fn peak() -> i64 {
    PEAK.replace(HELD.get().bytes)
}

/// Counts, or does not, while `act` runs.
pub(crate) fn counting<T>(counts: bool, act: impl FnOnce() -> T) -> T {
    struct Restore(bool);
    impl Drop for Restore {
        fn drop(&mut self) {
            COUNTS.set(self.0);
        }
    }
    let _restore = Restore(COUNTS.replace(counts));
    act()
}

fn count(bytes: i64, blocks: i64) {
    if COUNTS.get() {
        let held = HELD.get();
        HELD.set(Held { bytes: held.bytes + bytes, blocks: held.blocks + blocks });
        PEAK.set(PEAK.get().max(held.bytes + bytes));
    }
}

struct Ledger;

#[global_allocator]
static LEDGER: Ledger = Ledger;

// SAFETY: all of it is the system's allocator, called with what the caller gave.
unsafe impl GlobalAlloc for Ledger {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as i64, 1);
        // SAFETY: the caller's promise is the one that is asked for here.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as i64, 1);
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        count(-(layout.size() as i64), -1);
        // SAFETY: as above; the block is the system's, since every one is.
        unsafe { System.dealloc(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size as i64 - layout.size() as i64, 0);
        // SAFETY: as above.
        unsafe { System.realloc(block, layout, size) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_is_counted_while_it_is_asked_for() {
        let before = held();
        let block = counting(true, || vec![0_u8; 1000]);
        assert_eq!(held(), Held { bytes: before.bytes + 1000, blocks: before.blocks + 1 });
        let other = counting(true, || counting(false, || vec![0_u8; 10]));
        peak();
        counting(true, || drop(vec![0_u8; 500]));
        assert_eq!((peak(), peak()), (before.bytes + 1500, before.bytes + 1000));
        counting(true, || drop(block));
        drop(other);
        assert_eq!(held(), before);
    }
}
