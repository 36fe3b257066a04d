//! Telling the processor what is going to be needed.
//!
//! What a change touches in a large table comes from memory, and one place leads to the next: each that is asked for when it
//! is needed is waited for. Those that are asked for together come together.

/// Has the processor fetch the lines of its cache that hold so many bytes. It does so while the program goes on.
///
/// Nothing comes of it but that: the address may be anyone's. On other processors than x86-64 it does nothing, as Rust has
/// no stable way there.
#[inline]
pub(super) fn fetch(address: *const u8, bytes: usize) {
    let into_line = address.addr() % super::LINE;
    for offset in (0..into_line + bytes).step_by(super::LINE) {
        fetch_line(address.wrapping_sub(into_line).wrapping_add(offset));
    }
}

#[cfg(target_arch = "x86_64")]
#[inline]
fn fetch_line(line: *const u8) {
    use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
    // SAFETY: it needs SSE, which each x86-64 processor has, and it accesses nothing as far as the program is concerned
    // (Intel SDM, PREFETCHh: an address that is not accessible is ignored).
    unsafe { _mm_prefetch::<_MM_HINT_T0>(line.cast()) };
}

#[cfg(not(target_arch = "x86_64"))]
#[inline]
fn fetch_line(_: *const u8) {}
