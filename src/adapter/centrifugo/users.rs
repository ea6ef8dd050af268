//! The sessions of each user, on one worker: found, entered and left without a look at any others.
//!
//! ```text
//!   first: hash of the user --> slot --behind--> slot --behind--> slot
//!                                    <--before--      <--before--
//! ```
//!
//! The links stand in the sessions, so that one of the empty user costs nothing. Two users whose hashes are the same share a
//! list: whoever walks it looks at the user.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};

const NOBODY: u32 = u32::MAX;

/// Where a session stands in its user's list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Neighbours {
    before: u32,
    behind: u32,
}

/// The sessions, by slot.
pub(crate) trait Sessions {
    /// Where that one stands; `None` if there is none.
    fn neighbours(&mut self, slot: u32) -> Option<&mut Neighbours>;
}

/// A walk through a user's sessions that is under way, while others come and go. Those that come are not met: they are
/// entered in front.
#[derive(Debug)]
struct Walk {
    number: u64,
    next: u32,
}

/// See the module. Invariant: every slot in `first` and in `walks` is that of a session that was entered.
#[derive(Debug, Default)]
pub(crate) struct Users {
    first: HashMap<u64, u32>,
    /// Keyed at random: nobody can choose users whose hashes are the same.
    hasher: RandomState,
    walks: Vec<Walk>,
    /// Counts the walks.
    last: u64,
}

impl Users {
    /// The session in this slot is the user's from now on. Gives where it stands, which the session keeps.
    pub(crate) fn enter(&mut self, sessions: &mut impl Sessions, slot: u32, user: &str) -> Neighbours {
        let behind = self.first.insert(self.hasher.hash_one(user), slot).unwrap_or(NOBODY);
        if let Some(neighbours) = sessions.neighbours(behind) {
            neighbours.before = slot;
        }
        Neighbours { before: NOBODY, behind }
    }

    /// The session in this slot, which stood here, is no longer there.
    pub(crate) fn leave(&mut self, sessions: &mut impl Sessions, slot: u32, user: &str, from: Neighbours) {
        let Neighbours { before, behind } = from;
        if let Some(neighbours) = sessions.neighbours(behind) {
            neighbours.before = before;
        }
        match sessions.neighbours(before) {
            Some(neighbours) => neighbours.behind = behind,
            None if behind != NOBODY => _ = self.first.insert(self.hasher.hash_one(user), behind),
            None => _ = self.first.remove(&self.hasher.hash_one(user)),
        }
        for walk in self.walks.iter_mut().filter(|walk| walk.next == slot) {
            walk.next = behind;
        }
        if self.first.is_empty() {
            self.first = HashMap::new(); // after many there is room for many
        }
    }

    /// Begins a walk; `None` if the user has no session here.
    pub(crate) fn walk(&mut self, user: &str) -> Option<u64> {
        let next = *self.first.get(&self.hasher.hash_one(user))?;
        self.last += 1;
        self.walks.push(Walk { number: self.last, next });
        Some(self.last)
    }

    /// The next few slots of a walk, and whether it goes on.
    pub(crate) fn step(&mut self, sessions: &mut impl Sessions, number: u64, most: usize) -> (Vec<u32>, bool) {
        let mut slots = Vec::new();
        let Some(at) = self.walks.iter().position(|walk| walk.number == number) else { return (slots, false) };
        let walk = &mut self.walks[at];
        while slots.len() < most && walk.next != NOBODY {
            slots.push(walk.next);
            walk.next = sessions.neighbours(walk.next).map_or(NOBODY, |neighbours| neighbours.behind);
        }
        let goes_on = walk.next != NOBODY;
        if !goes_on {
            self.walks.swap_remove(at);
        }
        (slots, goes_on)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mem::Rng;
    use std::collections::BTreeMap;

    type Entered = BTreeMap<u32, (String, Neighbours)>;

    impl Sessions for Entered {
        fn neighbours(&mut self, slot: u32) -> Option<&mut Neighbours> {
            self.get_mut(&slot).map(|(_, neighbours)| neighbours)
        }
    }

    fn enter(users: &mut Users, entered: &mut Entered, slot: u32, user: &str) {
        let neighbours = users.enter(entered, slot, user);
        entered.insert(slot, (user.to_owned(), neighbours));
    }

    fn leave(users: &mut Users, entered: &mut Entered, slot: u32) {
        let (user, neighbours) = entered.remove(&slot).unwrap();
        users.leave(entered, slot, &user, neighbours);
    }

    fn all(users: &mut Users, entered: &mut Entered, user: &str) -> Vec<u32> {
        let Some(walk) = users.walk(user) else { return Vec::new() };
        let (mut slots, goes_on) = users.step(entered, walk, usize::MAX);
        assert!(!goes_on);
        slots.sort_unstable();
        slots
    }

    #[test]
    fn a_users_sessions_are_those_that_came_and_have_not_gone() {
        let mut rng = Rng::new(7);
        let (mut users, mut entered) = (Users::default(), Entered::new());
        for _ in 0..20_000 {
            let slot = rng.below(200) as u32;
            match entered.contains_key(&slot) {
                true => leave(&mut users, &mut entered, slot),
                false => enter(&mut users, &mut entered, slot, &format!("u{}", rng.below(10))),
            }
            let user = format!("u{}", rng.below(10));
            let expected: Vec<_> = entered.iter().filter(|(_, (of, _))| *of == user).map(|(slot, _)| *slot).collect();
            assert_eq!(all(&mut users, &mut entered, &user), expected);
        }
        entered.keys().copied().collect::<Vec<_>>().into_iter().for_each(|slot| leave(&mut users, &mut entered, slot));
        assert!(users.first.is_empty() && users.first.capacity() == 0 && users.walks.is_empty(), "nothing is left");
    }

    #[test]
    fn a_walk_meets_whoever_was_there_when_it_began_and_is_there_still() {
        for seed in 0..200 {
            let mut rng = Rng::new(seed);
            let (mut users, mut entered) = (Users::default(), Entered::new());
            (0..50).for_each(|slot| enter(&mut users, &mut entered, slot, "u"));
            let walk = users.walk("u").unwrap();
            let (mut met, mut gone, mut goes_on) = (Vec::new(), Vec::new(), true);
            while goes_on {
                let slots;
                (slots, goes_on) = users.step(&mut entered, walk, 1 + rng.below(4) as usize);
                met.extend(slots);
                for _ in 0..rng.below(4) {
                    let slot = rng.below(50) as u32;
                    if entered.contains_key(&slot) {
                        leave(&mut users, &mut entered, slot);
                        gone.push(slot);
                    }
                }
                let next = 50 + rng.below(1000) as u32;
                if !entered.contains_key(&next) {
                    enter(&mut users, &mut entered, next, "u");
                }
            }
            assert!(users.walks.is_empty());
            met.sort_unstable();
            let length = met.len();
            met.dedup();
            assert_eq!(met.len(), length, "each once");
            assert!(met.iter().all(|&slot| slot < 50), "{met:?}");
            assert!((0..50).all(|slot| met.contains(&slot) || gone.contains(&slot)), "{met:?} {gone:?}");
            assert_eq!(users.step(&mut entered, walk, 1), (Vec::new(), false));
        }
    }
}
