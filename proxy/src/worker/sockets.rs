//! Sockets that operations name by their place.

/// A list in which each keeps its place as long as it is there.
#[derive(Debug)]
pub(super) struct Sockets<T>(Vec<Option<T>>);

impl<T> Sockets<T> {
    /// Adds one; gives its place, which may have been another's that was removed. So one is to be removed only when no
    /// completion can name it any more.
    pub(super) fn insert(&mut self, socket: T) -> u32 {
        let place = self.0.iter().position(Option::is_none).unwrap_or(self.0.len());
        match self.0.get_mut(place) {
            Some(free) => *free = Some(socket),
            None => self.0.push(Some(socket)),
        }
        u32::try_from(place).unwrap_or(u32::MAX)
    }

    pub(super) fn get(&self, place: u32) -> Option<&T> {
        self.0.get(place as usize)?.as_ref()
    }

    pub(super) fn get_mut(&mut self, place: u32) -> Option<&mut T> {
        self.0.get_mut(place as usize)?.as_mut()
    }

    pub(super) fn remove(&mut self, place: u32) -> Option<T> {
        self.0.get_mut(place as usize)?.take()
    }

    /// Where there is one.
    pub(super) fn places(&self) -> Vec<u32> {
        (0u32..).zip(&self.0).filter(|(_, socket)| socket.is_some()).map(|(place, _)| place).collect()
    }
}

impl<T> FromIterator<T> for Sockets<T> {
    fn from_iter<I: IntoIterator<Item = T>>(sockets: I) -> Self {
        Self(sockets.into_iter().map(Some).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_keeps_its_place() {
        let mut sockets: Sockets<_> = ["a", "b", "c"].into_iter().collect();
        assert_eq!(sockets.remove(1), Some("b"));
        assert_eq!((sockets.remove(1), sockets.get(1), sockets.places()), (None, None, vec![0, 2]));
        assert_eq!((sockets.insert("d"), sockets.insert("e")), (1, 3));
        assert_eq!(sockets.get_mut(1), Some(&mut "d"));
        assert_eq!((sockets.get(3), sockets.get(4), sockets.places()), (Some(&"e"), None, vec![0, 1, 2, 3]));
    }
}
