//! Memory that a large message has taken, given back.

/// Messages of more bytes are large: what was made of them is a part of the memory that is noticed.
pub const LARGE: usize = 1 << 20;

/// Gives the kernel back what is free in the heap, wherever it lies (malloc_trim(3)).
///
/// What a large message was read into lies below what was made of it. Without this it would stay: 28 bytes for each backend
/// of a proxy that got its table whole, and more than all the rest of a daemon that was given a whole state. It takes some
/// milliseconds.
pub fn give_back() {
    // SAFETY: it takes the allocator's own locks, and moves nothing that is in use.
    #[cfg(target_env = "gnu")]
    #[allow(unsafe_code, reason = "there is no other way to call it")]
    unsafe {
        libc::malloc_trim(0);
    }
}
