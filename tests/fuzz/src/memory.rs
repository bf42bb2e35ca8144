//! An allocator that counts.
#![expect(unsafe_code, reason = "an allocator cannot be written without; it adds counting to the system's")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// The system's allocator, counting. The counts are those of all threads: what is measured runs alone.
#[derive(Debug)]
pub struct Counting;

static HELD: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);
static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: all calls go to the system's allocator as they came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 0);
        // SAFETY: the caller keeps the contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 0);
        // SAFETY: the caller keeps the contract.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the caller keeps the contract.
        unsafe { System.dealloc(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size, layout.size());
        // SAFETY: the caller keeps the contract.
        unsafe { System.realloc(block, layout, size) }
    }
}

fn count(more: usize, less: usize) {
    let held = HELD.fetch_add(more, Relaxed) + more;
    PEAK.fetch_max(held, Relaxed);
    HELD.fetch_sub(less, Relaxed);
    ALLOCATIONS.fetch_add(1, Relaxed);
}

/// What a run took. All zero unless [`Counting`] is the allocator.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Used {
    /// Most bytes held at a time, beyond those at its beginning.
    pub peak: usize,
    /// Bytes held at its end, beyond those at its beginning.
    pub left: usize,
    /// Calls for memory.
    pub allocations: usize,
}

pub(crate) struct Begun {
    held: usize,
    allocations: usize,
}

pub(crate) fn begin() -> Begun {
    let held = HELD.load(Relaxed);
    PEAK.store(held, Relaxed);
    Begun { held, allocations: ALLOCATIONS.load(Relaxed) }
}

impl Begun {
    pub(crate) fn used(&self) -> Used {
        Used {
            peak: PEAK.load(Relaxed).saturating_sub(self.held),
            left: HELD.load(Relaxed).saturating_sub(self.held),
            allocations: ALLOCATIONS.load(Relaxed) - self.allocations,
        }
    }
}
