//! Who is there: the subscribers of a topic, as its home knows them.

use super::message::Author;
use std::borrow::Borrow;
use std::collections::{HashMap, HashSet};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// Declares a member that is looked up by one of its names, which is not stored a second time.
macro_rules! by_name {
    ($name:ident, $field:ident) => {
        #[derive(Debug)]
        struct $name(Arc<Author>);

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0.$field
            }
        }

        impl Hash for $name {
            fn hash<H: Hasher>(&self, state: &mut H) {
                self.0.$field.hash(state);
            }
        }

        impl PartialEq for $name {
            fn eq(&self, other: &Self) -> bool {
                self.0.$field == other.0.$field
            }
        }

        impl Eq for $name {}
    };
}

by_name!(Client, client);
by_name!(User, user);

/// The members of a topic, by the id of their client. An empty one has no memory.
///
/// Invariant: `users` counts the members of each user, none of them 0.
#[derive(Debug, Default)]
pub(crate) struct Members {
    clients: HashSet<Client>,
    /// A user has the name of whichever of its clients came first.
    users: HashMap<User, u32>,
}

impl Members {
    /// A client is there. One that is there already is not counted twice.
    pub(crate) fn enter(&mut self, member: Arc<Author>) {
        self.leave(&member.client);
        match self.users.get_mut(&*member.user) {
            Some(count) => *count += 1,
            None => drop(self.users.insert(User(Arc::clone(&member)), 1)),
        }
        self.clients.insert(Client(member));
    }

    /// A client is no longer there.
    pub(crate) fn leave(&mut self, client: &str) -> Option<Arc<Author>> {
        let Client(member) = self.clients.take(client)?;
        if let Some(count) = self.users.get_mut(&*member.user) {
            *count -= 1;
            if *count == 0 {
                self.users.remove(&*member.user);
            }
        }
        if self.clients.is_empty() {
            *self = Self::default();
        }
        Some(member)
    }

    /// Everybody, in no order.
    pub(crate) fn clients(&self) -> impl Iterator<Item = &Arc<Author>> {
        self.clients.iter().map(|Client(member)| member)
    }

    /// How many clients, and how many different users, the empty one included.
    pub(crate) fn counts(&self) -> (usize, usize) {
        (self.clients.len(), self.users.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mem::Rng;

    fn member(client: u64, user: u64) -> Arc<Author> {
        let (client, user) = (client.to_string().into(), user.to_string().into());
        Arc::new(Author { client, user, info: Default::default(), is_quiet: false })
    }

    #[test]
    fn the_counts_are_those_of_a_list() {
        let (mut members, mut list, mut rng) = (Members::default(), HashMap::new(), Rng::new(5));
        for _ in 0..5000 {
            let (client, user) = (rng.below(30), rng.below(7));
            if rng.below(2) == 0 {
                members.enter(member(client, user));
                list.insert(client, user);
            } else {
                assert_eq!(members.leave(&client.to_string()).is_some(), list.remove(&client).is_some());
            }
            let users: std::collections::HashSet<_> = list.values().collect();
            assert_eq!(members.counts(), (list.len(), users.len()));
            assert_eq!(members.clients().count(), list.len());
        }
        (0..30).for_each(|client| drop(members.leave(&client.to_string())));
        assert_eq!((members.clients.capacity(), members.users.capacity()), (0, 0));
    }
}
