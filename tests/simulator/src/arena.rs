//! Memory that can be put back as it was. All that a thread allocates within an [`Arena`] lies in one block, with what
//! is known of its free parts, so that a copy of the block is a snapshot of all that has been made there. Outside of an
//! arena everything is the system's allocator.
//!
//! The cryptography's C code is given the same allocator, as keys hold memory of its.

use std::alloc::{GlobalAlloc, Layout, System, alloc, dealloc, handle_alloc_error};
use std::cell::Cell;
use std::ffi::{c_char, c_int, c_void};
use std::marker::PhantomData;
use std::ptr::{self, NonNull};
use std::sync::Once;

/// Address space of an arena, of which a run touches about a megabyte.
const BYTES: usize = 256 << 20;
/// Every block is aligned to this.
const ALIGN: usize = 16;
/// Sizes up to here are multiples of [`ALIGN`]; of larger ones there are four to each power of two.
const SMALL: usize = 1024;
const SMALL_CLASSES: usize = SMALL / ALIGN + 1;
const CLASSES: usize = SMALL_CLASSES + 4 * (BYTES.ilog2() - SMALL.ilog2()) as usize;
/// No pointer is so near to this address.
const NOWHERE: usize = usize::MAX - BYTES;

thread_local! {
    /// The arena that allocations are made in now, if any.
    static ACTIVE: Cell<*mut Header> = const { Cell::new(ptr::null_mut()) };
    /// The address of this thread's arena.
    static OWN: Cell<usize> = const { Cell::new(NOWHERE) };
}

/// The beginning of an arena.
#[repr(C, align(16))]
struct Header {
    /// The address beyond all that was ever handed out.
    top: usize,
    end: usize,
    /// Of each class the first free block; each holds the address of the next.
    free: [*mut u8; CLASSES],
}

/// A block of memory of this thread.
pub struct Arena {
    header: NonNull<Header>,
    /// It is the thread's own.
    _thread: PhantomData<*mut ()>,
}

/// What an arena holds at one moment.
pub struct Snapshot(Vec<u8>);

impl Snapshot {
    /// Room for one.
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
    /// An empty one.
    ///
    /// # Panics
    /// The thread has one already.
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

    /// What is allocated meanwhile lies in the arena.
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

    /// Keeps a copy of all that is there.
    ///
    /// # Safety
    /// Nothing of this thread refers to what the arena holds, but by addresses that are looked at again after
    /// [`Arena::restore`].
    pub unsafe fn save(&self, into: &mut Snapshot) {
        let start = self.header.as_ptr().cast::<u8>();
        // SAFETY: the header is there, and what lies below `top` is the arena's and has been written to or never read.
        let held = unsafe {
            let len = (*self.header.as_ptr()).top - start.addr();
            std::slice::from_raw_parts(start, len)
        };
        into.0.clear();
        into.0.extend_from_slice(held);
    }

    /// Makes it as it was.
    ///
    /// # Safety
    /// As [`Arena::save`]; and the snapshot is of this arena.
    pub unsafe fn restore(&self, from: &Snapshot) {
        let start = self.header.as_ptr().cast::<u8>();
        // SAFETY: the snapshot is a prefix of the arena; nobody borrows from it.
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
        // SAFETY: made by `new` with this layout; who looks into it after this breaks the contract of `save`.
        unsafe { System.dealloc(self.header.as_ptr().cast(), layout()) };
    }
}

/// The class of a size, and the size of its blocks.
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
        // SAFETY: nobody uses the block any more, and it has room for an address.
        unsafe { block.cast::<*mut u8>().write(self.free[class]) };
        self.free[class] = block;
    }
}

/// The arena of this thread, if the block lies in it.
fn owner(block: *mut u8) -> Option<NonNull<Header>> {
    let own = OWN.get();
    let is_own = block.addr().wrapping_sub(own) < BYTES;
    is_own.then(|| NonNull::new(block.with_addr(own).cast()))?
}

/// The allocator of every program of this crate.
struct Allocator;

#[global_allocator]
static ALLOCATOR: Allocator = Allocator;

// SAFETY: blocks are the system's, or lie in an arena: aligned, large enough, and nobody else's until they are given
// back.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        match NonNull::new(ACTIVE.get()) {
            // SAFETY: an arena that is active is there, is this thread's, and nobody else looks at its header now.
            Some(mut arena) => unsafe { arena.as_mut().take(layout) },
            // SAFETY: the caller's promise, passed on.
            None => unsafe { System.alloc(layout) },
        }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if ACTIVE.get().is_null() {
            // SAFETY: the caller's promise, passed on.
            return unsafe { System.alloc_zeroed(layout) };
        }
        // SAFETY: the caller's promise, passed on.
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
            // SAFETY: the caller's promise, passed on.
            None => unsafe { System.dealloc(block, layout) },
        }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if owner(block).is_none() {
            // SAFETY: the caller's promise, passed on.
            return unsafe { System.realloc(block, layout, size) };
        }
        if size <= BYTES / 2 && class_of(size) == class_of(layout.size()) {
            return block;
        }
        // SAFETY: the caller's promise: the new size is not 0 and does not overflow with this alignment.
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

/// Gives C code the allocator. It must be done before that code allocates anything.
pub fn prepare() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: these are an allocator's functions.
        let done = unsafe {
            aws_lc_sys::CRYPTO_set_mem_functions(Some(c_alloc), Some(c_realloc), Some(c_free))
        };
        assert_eq!(done, 1, "the allocator of the cryptography cannot be set");
    });
}

/// C code does not say how large a block was: that lies before it.
const PREFIX: usize = ALIGN;

fn c_layout(size: usize) -> Option<Layout> {
    Layout::from_size_align(size.checked_add(PREFIX)?, ALIGN).ok()
}

unsafe extern "C" fn c_alloc(size: usize, _file: *const c_char, _line: c_int) -> *mut c_void {
    let Some(layout) = c_layout(size) else {
        return ptr::null_mut();
    };
    // SAFETY: the layout is not empty, and has room for the size before what is handed out.
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
    // SAFETY: made by `c_alloc`, which put the size there.
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
    // SAFETY: made by `c_alloc`, which put the size there; both are as large as what is copied.
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
