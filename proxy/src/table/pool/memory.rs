//! Memory for chunks: what begins at a multiple of its size can be found from whatever lies in it.

use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mmap_anonymous};
use nix::unistd::{SysconfVar, sysconf};
use std::alloc::Layout;
use std::num::NonZeroUsize;
use std::ptr::NonNull;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

/// The size of a chunk, and what its address is a multiple of. A larger one is held by one value that stays, and a smaller one
/// leaves holes as small as those that are to be avoided.
pub(super) const CHUNK: usize = 1 << 14;

/// What an error says could not be had.
pub(super) const LAYOUT: Layout = match Layout::from_size_align(CHUNK, CHUNK) {
    Ok(layout) => layout,
    Err(_) => unreachable!(),
};

/// So much is asked of the kernel at a time. It costs only addresses until it is touched.
const REGION: NonZeroUsize = NonZeroUsize::new(1 << 20).unwrap();

/// So many chunks that were given back keep their pages: values that come and go would have the kernel take and give them
/// each time.
const KEPT: usize = 16;

struct Memory {
    /// Chunks that were given back and still have their pages.
    kept: Vec<NonNull<u8>>,
    /// Those whose pages the kernel has.
    emptied: Vec<NonNull<u8>>,
    /// The part of the last region from which no chunk was taken yet.
    fresh: Option<(NonNull<u8>, usize)>,
}

// SAFETY: memory that nobody uses belongs to no thread.
unsafe impl Send for Memory {}

static MEMORY: Mutex<Memory> = Mutex::new(Memory { kept: Vec::new(), emptied: Vec::new(), fresh: None });

fn lock() -> MutexGuard<'static, Memory> {
    MEMORY.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A chunk, whatever is in it; `None` if the kernel has no memory for it.
pub(super) fn take() -> Option<NonNull<u8>> {
    let mut memory = lock();
    let before = memory.kept.pop();
    if let Some(chunk) = before.or_else(|| memory.emptied.pop()) {
        return Some(chunk);
    }
    let (chunk, left) = match memory.fresh.filter(|(_, left)| *left >= CHUNK) {
        Some(fresh) => fresh,
        None => region()?,
    };
    // SAFETY: so much is left.
    memory.fresh = Some((unsafe { chunk.add(CHUNK) }, left - CHUNK));
    Some(chunk)
}

/// Takes a chunk back. The kernel gets its pages, unless few chunks are kept.
///
/// # Safety
/// It is from [`take`], and nobody uses it any more.
pub(super) unsafe fn give_back(chunk: NonNull<u8>) {
    {
        let mut memory = lock();
        if memory.kept.len() < KEPT {
            return memory.kept.push(chunk);
        }
    }
    if is_whole_pages() {
        // SAFETY: as asked of the caller, all of it is an anonymous mapping of ours, and no page has anything else on it.
        let emptied = unsafe { madvise(chunk.cast(), CHUNK, MmapAdvise::MADV_DONTNEED) };
        if let Err(error) = emptied {
            // It is as good with its pages, which memory that is locked keeps.
            tracing::trace!(%error, "a chunk keeps its pages");
        }
    }
    lock().emptied.push(chunk);
}

/// Whether nothing else is on a chunk's pages: the kernel takes whole ones, and some machines have pages of 64 KiB.
fn is_whole_pages() -> bool {
    static IS: OnceLock<bool> = OnceLock::new();
    *IS.get_or_init(|| {
        let page = sysconf(SysconfVar::PAGE_SIZE).ok().flatten().and_then(|page| usize::try_from(page).ok());
        page.is_some_and(|page| CHUNK.is_multiple_of(page))
    })
}

/// New memory that begins at a multiple of a chunk's size, and its length.
fn region() -> Option<(NonNull<u8>, usize)> {
    let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
    // SAFETY: a new mapping at an address that the kernel chooses concerns nobody else.
    let start = unsafe { mmap_anonymous(None, REGION, access, MapFlags::MAP_PRIVATE) }.ok()?.cast::<u8>();
    let skipped = start.addr().get().next_multiple_of(CHUNK) - start.addr().get();
    // SAFETY: a chunk is smaller than a region.
    Some((unsafe { start.add(skipped) }, REGION.get() - skipped))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    /// So many that they are in several regions, and that most are not kept.
    const MANY: u8 = 200;

    fn holds(chunk: NonNull<u8>, byte: u8) -> bool {
        // SAFETY: it was taken, and only this thread has it.
        unsafe { chunk.cast::<[u8; CHUNK]>().as_ref() }.iter().all(|one| *one == byte)
    }

    /// Chunks lie apart, and giving one back leaves its neighbours as they are.
    #[test]
    fn chunks_are_apart() {
        let take = |number| {
            let chunk = take().unwrap();
            // SAFETY: it was taken, and only this thread has it.
            unsafe { chunk.write_bytes(number, CHUNK) };
            (chunk, number)
        };
        let mut taken: Vec<_> = (0..MANY).map(take).collect();
        for round in 0..3 {
            let places: HashSet<_> = taken.iter().map(|(chunk, _)| chunk.addr()).collect();
            assert!(places.len() == taken.len() && places.iter().all(|place| place.get().is_multiple_of(CHUNK)));
            for (chunk, number) in taken.extract_if(.., |(_, number)| *number % 3 == round) {
                assert!(holds(chunk, number));
                // SAFETY: it was taken, and is given back once.
                unsafe { give_back(chunk) };
            }
            assert!(taken.iter().all(|(chunk, number)| holds(*chunk, *number)));
            taken.extend((0..MANY).filter(|number| number % 3 == round).map(take));
        }
        for (chunk, number) in taken {
            assert!(holds(chunk, number));
            // SAFETY: as above.
            unsafe { give_back(chunk) };
        }
    }
}
