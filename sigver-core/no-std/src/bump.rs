//! An allocator over a static buffer that never frees.

use core::{
    alloc::{GlobalAlloc, Layout},
    cell::UnsafeCell,
    ptr,
    sync::atomic::{AtomicUsize, Ordering},
};

/// Bytes of the buffer. A session needs about a tenth.
const SIZE: usize = 64 * 1024;

/// Hands out a buffer from its start to its end.
pub(crate) struct BumpAllocator {
    buffer: UnsafeCell<[u8; SIZE]>,
    used: AtomicUsize,
}

// SAFETY: every byte of the buffer is handed out once at most, because `used` only grows, in one atomic step.
unsafe impl Sync for BumpAllocator {}

impl BumpAllocator {
    pub(crate) const fn new() -> Self {
        Self {
            buffer: UnsafeCell::new([0; SIZE]),
            used: AtomicUsize::new(0),
        }
    }
}

// SAFETY: a returned pointer is null, or aligned and followed by `layout.size()` bytes of the buffer that no other allocation has. Nothing unwinds.
unsafe impl GlobalAlloc for BumpAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let start = self.buffer.get().cast::<u8>();
        let mut offset = 0;
        let reserved = self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
            let padding = (start as usize + used).wrapping_neg() % layout.align();
            offset = used + padding;
            offset.checked_add(layout.size()).filter(|end| *end <= SIZE)
        });
        match reserved {
            // SAFETY: `offset` and what follows were checked to be within the buffer.
            Ok(_) => unsafe { start.add(offset) },
            Err(_) => ptr::null_mut(),
        }
    }

    unsafe fn dealloc(&self, _: *mut u8, _: Layout) {}
}
