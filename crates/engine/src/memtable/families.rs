//! The trees of a memtable, one for each family that has versions in it, found without a lock.

use super::tree::{Arena, Tree};
use crate::Family;
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

/// Chains; families are numbered from 0, so with up to so many a family is found at once.
const CHAINS: usize = 16;

/// Trees are added and never removed, so chains only grow at their end.
#[derive(Default)]
pub(super) struct Families {
    chains: [OnceLock<Box<Link>>; CHAINS],
}

struct Link {
    family: Family,
    tree: Arc<Tree>,
    next: OnceLock<Box<Link>>,
}

impl Families {
    /// The tree of a family, if it has one.
    pub(super) fn get(&self, family: Family) -> Option<&Arc<Tree>> {
        let mut link = self.chains[family.0 as usize % CHAINS].get()?;
        while link.family != family {
            link = link.next.get()?;
        }
        Some(&link.tree)
    }

    /// The tree of a family, made in `arena` if there is none yet.
    pub(super) fn get_or_add(&self, family: Family, arena: &Arc<Arena>) -> &Arc<Tree> {
        let mut place = &self.chains[family.0 as usize % CHAINS];
        loop {
            let new = || Box::new(Link { family, tree: Arc::new(Tree::new(arena.clone())), next: OnceLock::new() });
            let link = place.get_or_init(new);
            if link.family == family {
                return &link.tree;
            }
            place = &link.next;
        }
    }

    /// All of them.
    pub(super) fn all(&self) -> BTreeMap<Family, &Arc<Tree>> {
        let mut all = BTreeMap::new();
        for chain in &self.chains {
            let mut next = chain.get();
            while let Some(link) = next {
                let before = all.insert(link.family, &link.tree);
                assert!(before.is_none(), "a family is in one place of one chain");
                next = link.next.get();
            }
        }
        all
    }
}
