//! The table of connections. It alone creates and checks [`ConnId`]s.

use slab::Slab;

use crate::id::ConnId;

/// A slab whose ids become invalid with their entry: a reused slot has another generation.
pub(crate) struct Arena<T> {
    slots: Slab<Slot<T>>,
    /// The generation of the next entry: one counter for all slots, so that it wraps as late as possible.
    next: u32,
}

struct Slot<T> {
    generation: u32,
    value: T,
}

impl<T> Arena<T> {
    pub(crate) const fn new() -> Self {
        Self {
            slots: Slab::new(),
            next: 0,
        }
    }

    /// Inserts `value`. The caller keeps the arena below 2^32 entries.
    pub(crate) fn insert(&mut self, value: T) -> ConnId {
        let generation = self.next;
        self.next = generation.wrapping_add(1);
        let slot = self.slots.insert(Slot { generation, value });
        ConnId::new(slot as u32, generation)
    }

    pub(crate) fn get(&self, id: ConnId) -> Option<&T> {
        let slot = self.slots.get(id.slot())?;
        (slot.generation == id.generation()).then_some(&slot.value)
    }

    pub(crate) fn get_mut(&mut self, id: ConnId) -> Option<&mut T> {
        let slot = self.slots.get_mut(id.slot())?;
        (slot.generation == id.generation()).then_some(&mut slot.value)
    }

    pub(crate) fn remove(&mut self, id: ConnId) -> Option<T> {
        self.get(id)?;
        self.slots.try_remove(id.slot()).map(|slot| slot.value)
    }

    /// Removes every entry. Their ids become invalid.
    pub(crate) fn clear(&mut self) {
        self.slots.clear();
    }

    pub(crate) fn len(&self) -> u32 {
        self.slots.len() as u32
    }

    /// Returns all entries, by slot.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (ConnId, &T)> {
        self.slots
            .iter()
            .map(|(slot, entry)| (ConnId::new(slot as u32, entry.generation), &entry.value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn id_is_invalid_after_its_entry_is_removed() {
        let mut arena = Arena::new();
        let first = arena.insert('a');
        assert_eq!(arena.remove(first), Some('a'));
        let second = arena.insert('b');
        assert_eq!(second.slot(), first.slot(), "slots are reused");
        assert_eq!(arena.get(first), None);
        assert_eq!(arena.get_mut(first), None);
        assert_eq!(arena.remove(first), None);
        assert_eq!(arena.get(second), Some(&'b'));
        assert_eq!(ConnId::from_bits(second.to_bits()), second);
    }

    #[test]
    fn generation_wraps_to_another_id() {
        let mut arena = Arena::new();
        arena.next = u32::MAX;
        let last = arena.insert(1);
        assert_eq!(arena.remove(last), Some(1));
        let first = arena.insert(2);
        assert_eq!((arena.get(last), arena.get(first)), (None, Some(&2)));
    }
}
