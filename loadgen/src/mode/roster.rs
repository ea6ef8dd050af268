//! A list of slots with removal anywhere: each member keeps its place.

/// A member's place; none: it is not in the list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Place(Option<u32>);

/// Slots in no order.
#[derive(Debug, Default)]
pub(crate) struct Roster {
    slots: Vec<u32>,
}

impl Roster {
    pub(crate) fn add(&mut self, slot: u32) -> Place {
        self.slots.push(slot);
        Place(Some(self.slots.len() as u32 - 1))
    }

    /// Takes out whoever is at `place`. Another one moves there: its slot comes back, to be told.
    #[must_use = "who moved has to know its new place"]
    pub(crate) fn remove(&mut self, place: Place) -> Option<u32> {
        let index = place.0? as usize;
        self.slots.swap_remove(index);
        self.slots.get(index).copied()
    }

    pub(crate) fn at(&self, index: usize) -> u32 {
        self.slots[index]
    }

    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use throng::mem::Rng;

    #[test]
    fn everyone_knows_their_place() {
        let (mut rng, mut roster, mut places) = (Rng::new(5), Roster::default(), vec![Place::default(); 50]);
        for _ in 0..5000 {
            let slot = rng.below(50) as u32;
            let place = std::mem::take(&mut places[slot as usize]);
            if place != Place::default() {
                if let Some(moved) = roster.remove(place) {
                    places[moved as usize] = place;
                }
            } else {
                places[slot as usize] = roster.add(slot);
            }
            for (slot, place) in places.iter().enumerate().filter(|(_, place)| **place != Place::default()) {
                assert_eq!(roster.at(place.0.unwrap() as usize) as usize, slot);
            }
            assert_eq!(roster.len(), places.iter().filter(|&&place| place != Place::default()).count());
        }
    }
}
