//! Restores memory to an earlier state. Everything that a thread allocates within an [`Arena`] lies in one block,
//! together with its free lists, so that a copy of the block is a snapshot of all these allocations. Outside of an
//! arena all memory is from the system's allocator.
//!
//! The cryptography's C code uses the same allocator, as keys hold memory of its.

use std::alloc::{GlobalAlloc, Layout, System, alloc, dealloc, handle_alloc_error};
use std::cell::Cell;
use std::ffi::{c_char, c_int, c_void};
use std::marker::PhantomData;
use std::ptr::{self, NonNull};
use std::sync::Once;

/// The address space of an arena. A run touches about a megabyte of it.
const BYTES: usize = 256 << 20;
/// The alignment of every block.
const ALIGN: usize = 16;
/// Sizes up to here are multiples of [`ALIGN`]; of larger ones there are four to each power of two.
const SMALL: usize = 1024;
const SMALL_CLASSES: usize = SMALL / ALIGN + 1;
const CLASSES: usize = SMALL_CLASSES + 4 * (BYTES.ilog2() - SMALL.ilog2()) as usize;
/// No pointer is so near to this address, so it means "no arena".
const NOWHERE: usize = usize::MAX - BYTES;

thread_local! {
    /// The arena in which this thread allocates now, if any.
    static ACTIVE: Cell<*mut Header> = const { Cell::new(ptr::null_mut()) };
    /// The address of this thread's arena.
    static OWN: Cell<usize> = const { Cell::new(NOWHERE) };
}

/// The header of an arena.
#[repr(C, align(16))]
struct Header {
    /// The address beyond all that was ever allocated.
    top: usize,
    end: usize,
    /// The first free block of each class; each free block holds the address of the next.
    free: [*mut u8; CLASSES],
}

/// A block of memory in which one thread allocates.
pub struct Arena {
    header: NonNull<Header>,
    /// It belongs to one thread.
    _thread: PhantomData<*mut ()>,
}

/// A copy of an arena's content.
pub struct Snapshot(Vec<u8>);

impl Snapshot {
    /// Makes room for a snapshot.
    #[must_use]
    pub const fn new() -> Snapshot {
        Snapshot(Vec::new())
    }
}

impl Default for Snapshot {
    fn default() -> Snapshot {
        Snapshot::new()
    }
}

const fn layout() -> Layout {
    match Layout::from_size_align(BYTES, 4096) {
        Ok(layout) => layout,
        Err(_) => panic!("a power of two"),
    }
}

impl Arena {
    /// Makes an empty arena.
    ///
    /// # Panics
    /// The thread has an arena already.
    #[must_use]
    pub fn new() -> Arena {
        assert_eq!(OWN.get(), NOWHERE, "a thread has one arena");
        // SAFETY: the layout is not empty.
        let start = unsafe { System.alloc(layout()) };
        let Some(header) = NonNull::new(start.cast::<Header>()) else {
            handle_alloc_error(layout());
        };
        let first = Header {
            top: start.addr() + size_of::<Header>(),
            end: start.addr() + BYTES,
            free: [ptr::null_mut(); CLASSES],
        };
        // SAFETY: the block is large enough, and aligned to a page.
        unsafe { header.write(first) };
        OWN.set(start.addr());
        Arena {
            header,
            _thread: PhantomData,
        }
    }

    /// Calls `f`, whose allocations lie in the arena.
    pub fn within<T>(&self, f: impl FnOnce() -> T) -> T {
        struct Leaves(*mut Header);
        impl Drop for Leaves {
            fn drop(&mut self) {
                ACTIVE.set(self.0);
            }
        }
        let _leaves = Leaves(ACTIVE.replace(self.header.as_ptr()));
        f()
    }

    /// Copies the arena's content.
    ///
    /// # Safety
    /// Nothing of this thread refers to the arena's content, except by addresses that are dereferenced only after
    /// [`Arena::restore`].
    pub unsafe fn save(&self, into: &mut Snapshot) {
        let start = self.header.as_ptr().cast::<u8>();
        // SAFETY: the header is initialised, and the memory below `top` is the arena's and has been written to or is
        // never read.
        let held = unsafe {
            let len = (*self.header.as_ptr()).top - start.addr();
            std::slice::from_raw_parts(start, len)
        };
        into.0.clear();
        into.0.extend_from_slice(held);
    }

    /// Restores the arena's content.
    ///
    /// # Safety
    /// As [`Arena::save`]; and the snapshot was taken of this arena.
    pub unsafe fn restore(&self, from: &Snapshot) {
        let start = self.header.as_ptr().cast::<u8>();
        // SAFETY: the snapshot is a prefix of the arena; there are no references into it.
        unsafe { ptr::copy_nonoverlapping(from.0.as_ptr(), start, from.0.len()) };
    }
}

impl Default for Arena {
    fn default() -> Arena {
        Arena::new()
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        OWN.set(NOWHERE);
        // SAFETY: made by `new` with this layout; a later access to its content would violate the contract of `save`.
        unsafe { System.dealloc(self.header.as_ptr().cast(), layout()) };
    }
}

/// Returns the class of a size, and the size of its blocks.
fn class_of(size: usize) -> (usize, usize) {
    if size <= SMALL {
        let class = size.div_ceil(ALIGN);
        return (class, class * ALIGN);
    }
    let last = size - 1;
    let log = last.ilog2();
    let quarters = last >> (log - 2);
    let class = SMALL_CLASSES + 4 * (log - SMALL.ilog2()) as usize + (quarters - 4);
    (class, (quarters + 1) << (log - 2))
}

impl Header {
    fn take(&mut self, layout: Layout) -> *mut u8 {
        if layout.size() > BYTES / 2 {
            return ptr::null_mut();
        }
        let (class, bytes) = class_of(layout.size());
        let first = self.free[class];
        if !first.is_null() && layout.align() <= ALIGN {
            // SAFETY: a free block holds the address of the next one.
            self.free[class] = unsafe { first.cast::<*mut u8>().read() };
            return first;
        }
        let at = self.top.next_multiple_of(layout.align().max(ALIGN));
        if at + bytes > self.end {
            return ptr::null_mut();
        }
        self.top = at + bytes;
        ptr::from_mut(self).cast::<u8>().with_addr(at)
    }

    fn give_back(&mut self, block: *mut u8, layout: Layout) {
        let (class, _) = class_of(layout.size());
        // SAFETY: the block is not used any more, and it has room for an address.
        unsafe { block.cast::<*mut u8>().write(self.free[class]) };
        self.free[class] = block;
    }
}

/// Returns the arena of this thread, if the block lies in it.
fn owner(block: *mut u8) -> Option<NonNull<Header>> {
    let own = OWN.get();
    let is_own = block.addr().wrapping_sub(own) < BYTES;
    is_own.then(|| NonNull::new(block.with_addr(own).cast()))?
}

/// The allocator of every program of this crate.
struct Allocator;

#[global_allocator]
static ALLOCATOR: Allocator = Allocator;

// SAFETY: blocks are the system's, or lie in an arena: aligned, large enough, and used once only until they are freed.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        match NonNull::new(ACTIVE.get()) {
            // SAFETY: an active arena is alive and belongs to this thread, and no other reference to its header exists
            // now.
            Some(mut arena) => unsafe { arena.as_mut().take(layout) },
            // SAFETY: the caller guarantees what `alloc` requires.
            None => unsafe { System.alloc(layout) },
        }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if ACTIVE.get().is_null() {
            // SAFETY: the caller guarantees what `alloc_zeroed` requires.
            return unsafe { System.alloc_zeroed(layout) };
        }
        // SAFETY: the caller guarantees what `alloc_zeroed` requires, which includes what `alloc` does.
        let block = unsafe { self.alloc(layout) };
        if !block.is_null() {
            // SAFETY: the block is that large.
            unsafe { block.write_bytes(0, layout.size()) };
        }
        block
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        match owner(block) {
            // SAFETY: as in `alloc`.
            Some(mut arena) => unsafe { arena.as_mut().give_back(block, layout) },
            // SAFETY: the caller guarantees what `dealloc` requires.
            None => unsafe { System.dealloc(block, layout) },
        }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if owner(block).is_none() {
            // SAFETY: the caller guarantees what `realloc` requires.
            return unsafe { System.realloc(block, layout, size) };
        }
        if size <= BYTES / 2 && class_of(size) == class_of(layout.size()) {
            return block;
        }
        // SAFETY: the caller guarantees that the new size is not 0 and does not overflow with this alignment.
        unsafe {
            let new = self.alloc(Layout::from_size_align_unchecked(size, layout.align()));
            if !new.is_null() {
                ptr::copy_nonoverlapping(block, new, layout.size().min(size));
                self.dealloc(block, layout);
            }
            new
        }
    }
}

/// Makes the cryptography's C code use this allocator. It must be called before that code allocates anything.
pub fn prepare() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: these functions form an allocator.
        let done = unsafe {
            aws_lc_sys::CRYPTO_set_mem_functions(Some(c_alloc), Some(c_realloc), Some(c_free))
        };
        assert_eq!(done, 1, "the allocator of the cryptography cannot be set");
    });
}

/// C code does not pass the size when it frees a block, so the size is stored before the block.
const PREFIX: usize = ALIGN;

fn c_layout(size: usize) -> Option<Layout> {
    Layout::from_size_align(size.checked_add(PREFIX)?, ALIGN).ok()
}

unsafe extern "C" fn c_alloc(size: usize, _file: *const c_char, _line: c_int) -> *mut c_void {
    let Some(layout) = c_layout(size) else {
        return ptr::null_mut();
    };
    // SAFETY: the layout is not empty, and has room for the size before the returned block.
    unsafe {
        let block = alloc(layout);
        if block.is_null() {
            return ptr::null_mut();
        }
        block.cast::<usize>().write(size);
        block.add(PREFIX).cast()
    }
}

unsafe extern "C" fn c_free(block: *mut c_void, _file: *const c_char, _line: c_int) {
    if block.is_null() {
        return;
    }
    // SAFETY: made by `c_alloc`, which stored the size there.
    unsafe {
        let start = block.cast::<u8>().sub(PREFIX);
        let size = start.cast::<usize>().read();
        if let Some(layout) = c_layout(size) {
            dealloc(start, layout);
        }
    }
}

unsafe extern "C" fn c_realloc(
    block: *mut c_void,
    size: usize,
    file: *const c_char,
    line: c_int,
) -> *mut c_void {
    // SAFETY: made by `c_alloc`, which stored the size there; both blocks are at least as large as the copied part.
    unsafe {
        let new = c_alloc(size, file, line);
        if !block.is_null() && !new.is_null() {
            let before = block.cast::<u8>().sub(PREFIX).cast::<usize>().read();
            ptr::copy_nonoverlapping(block.cast::<u8>(), new.cast(), before.min(size));
            c_free(block, file, line);
        }
        new
    }
}

#[cfg(test)]
mod tests;
