//! A counted reference to a value in a pool.

use super::fetch::fetch;
use super::{ClassOf, Head, count, memory};
use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Deref;
use std::process::abort;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering, fence};

/// Refers to a value, which is there until the last one that refers to it is dropped, in whatever thread.
///
/// It is an `Arc` without weak references, but for the place: the value lies in a [pool](super), and its count with those of
/// its neighbours. Two are equal if they refer to the same value.
pub struct Pooled<T> {
    value: NonNull<T>,
}

/// Nobody has so many references but by losing them: they are 16 GiB of pointers.
const TOO_MANY: u32 = u32::MAX / 2;

impl<T> Pooled<T> {
    /// A value that nobody else refers to.
    #[must_use]
    pub fn new(value: T) -> Self {
        let slot = ClassOf::<T>::pool().lock().take(ClassOf::<T>::SHAPE).cast();
        // SAFETY: the slot has room for a value of this type, is aligned for it, and nobody else refers to it.
        unsafe { slot.write(value) };
        Self { value: slot }
    }

    fn references(&self) -> &AtomicU32 {
        let (chunk, number) = ClassOf::<T>::SHAPE.place(self.value.cast());
        // SAFETY: a slot is given back when the last reference is gone, and this is one.
        unsafe { count(chunk, number) }
    }

    /// Has the processor fetch what copying the reference needs.
    pub fn fetch_count(&self) {
        fetch(std::ptr::from_ref(self.references()).cast(), size_of::<AtomicU32>());
    }

    /// Has the processor fetch what putting another value in the place of this one needs: the value, the count, and what
    /// its chunk begins with.
    pub fn fetch(&self) {
        let (chunk, _) = ClassOf::<T>::SHAPE.place(self.value.cast());
        fetch(self.value.as_ptr().cast(), size_of::<T>());
        fetch(chunk.as_ptr().cast(), size_of::<Head>());
        self.fetch_count();
    }

    /// The value, to be changed: a copy of it if others refer to it too.
    pub fn make_mut(&mut self) -> &mut T
    where
        T: Clone,
    {
        // What those did who referred to it before comes before what is done now.
        if self.references().load(Ordering::Acquire) > 1 {
            *self = Self::new(T::clone(self));
        }
        // SAFETY: this is the only reference, so nobody can make another one but by `self`, which is borrowed.
        unsafe { self.value.as_mut() }
    }
}

impl<T> Deref for Pooled<T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: as for the references, and a value is changed only while nobody else refers to it.
        unsafe { self.value.as_ref() }
    }
}

impl<T> Clone for Pooled<T> {
    fn clone(&self) -> Self {
        // Who has a reference can give another one to others only in a way that orders all before it, as for `Arc`.
        if self.references().fetch_add(1, Ordering::Relaxed) > TOO_MANY {
            abort();
        }
        Self { value: self.value }
    }
}

impl<T> Drop for Pooled<T> {
    fn drop(&mut self) {
        if self.references().fetch_sub(1, Ordering::Release) > 1 {
            return;
        }
        // All that others did with the value before they dropped their references comes before it is dropped.
        fence(Ordering::Acquire);
        // SAFETY: this was the last reference. The value is dropped before the pool is locked: it may refer to others.
        let left = unsafe {
            self.value.drop_in_place();
            ClassOf::<T>::pool().lock().give_back(ClassOf::<T>::SHAPE, self.value.cast())
        };
        if let Some(chunk) = left {
            // SAFETY: it is nobody's any more. The pool is not locked: the kernel takes its time.
            unsafe { memory::give_back(chunk) };
        }
    }
}

impl<T: Default> Default for Pooled<T> {
    fn default() -> Self {
        Self::new(T::default())
    }
}

impl<T> PartialEq for Pooled<T> {
    fn eq(&self, other: &Self) -> bool {
        self.value == other.value
    }
}

impl<T> Eq for Pooled<T> {}

impl<T> Hash for Pooled<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.value.hash(state);
    }
}

impl<T: fmt::Debug> fmt::Debug for Pooled<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        T::fmt(self, formatter)
    }
}

// SAFETY: the value may be used and dropped by all threads, and the count is atomic.
unsafe impl<T: Send + Sync> Send for Pooled<T> {}
// SAFETY: as above.
unsafe impl<T: Send + Sync> Sync for Pooled<T> {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicI64, AtomicU64};
    use std::thread;

    /// Counts how many of its kind there are. Ten fill a chunk, so that chunks come and go.
    struct Counted(AtomicU64, [u64; 200]);

    static ALIVE: AtomicI64 = AtomicI64::new(0);

    impl Counted {
        fn new(number: u64) -> Self {
            ALIVE.fetch_add(1, Ordering::SeqCst);
            Self(AtomicU64::new(number), [number; 200])
        }

        fn number(&self) -> u64 {
            let number = self.0.load(Ordering::SeqCst);
            assert!(self.1.iter().all(|other| *other == number), "somebody else has written here");
            number
        }
    }

    impl Clone for Counted {
        fn clone(&self) -> Self {
            Self::new(self.number())
        }
    }

    impl Drop for Counted {
        fn drop(&mut self) {
            self.number();
            ALIVE.fetch_sub(1, Ordering::SeqCst);
        }
    }

    /// One test for all, as they count the same values: whoever is last, a value is dropped once.
    #[test]
    fn values_are_dropped_with_their_last_reference() {
        let mut one = Pooled::new(Counted::new(1));
        let other = Pooled::new(Counted::new(1));
        assert!(one != other && one == one.clone());

        one.make_mut().0.store(1, Ordering::SeqCst);
        assert_eq!(ALIVE.load(Ordering::SeqCst), 2, "the only reference needs no copy");
        let before = one.clone();
        *one.make_mut() = Counted::new(3);
        assert_eq!(([&one, &before, &other].map(|value| value.number()), ALIVE.load(Ordering::SeqCst)), ([3, 1, 1], 3));
        drop((one, before, other));
        assert_eq!(ALIVE.load(Ordering::SeqCst), 0);

        thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    for _ in 0..500 {
                        let values: Vec<_> = (0..20).map(|number| Pooled::new(Counted::new(number))).collect();
                        assert!((0..).zip(&values).all(|(number, value)| value.number() == number));
                    }
                });
            }
            for _ in 0..500 {
                let value = Pooled::new(Counted::new(7));
                let copies = [(); 3].map(|()| value.clone());
                thread::scope(|scope| {
                    for copy in copies {
                        scope.spawn(move || assert_eq!(copy.number(), 7));
                    }
                    drop(value);
                });
            }
        });
        assert_eq!(ALIVE.load(Ordering::SeqCst), 0);
    }
}
