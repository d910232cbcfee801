//! The trees and range tombstones of a memtable, for each family that was written to, found without a lock.

use super::tree::{Arena, Tree};
use crate::Family;
use crate::range::Recent;
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

/// Chains; families are numbered from 0, so up to this number a family is found at once.
const CHAINS: usize = 16;

/// Trees are added and never removed, so chains only grow at their end.
#[derive(Default)]
pub(super) struct Families {
    chains: [OnceLock<Box<Link>>; CHAINS],
}

struct Link {
    family: Family,
    tree: Arc<Tree>,
    ranges: Recent,
    next: OnceLock<Box<Link>>,
}

impl Families {
    /// The tree of a family, if it has one.
    pub(super) fn get(&self, family: Family) -> Option<&Arc<Tree>> {
        self.link(family).map(|link| &link.tree)
    }

    /// The range tombstones of a family, if it was written to.
    pub(super) fn ranges(&self, family: Family) -> Option<&Recent> {
        self.link(family).map(|link| &link.ranges)
    }

    fn link(&self, family: Family) -> Option<&Link> {
        let mut link = self.chains[family.0 as usize % CHAINS].get()?;
        while link.family != family {
            link = link.next.get()?;
        }
        Some(link)
    }

    /// The tree of a family, made in `arena` if there is none yet.
    pub(super) fn get_or_add(&self, family: Family, arena: &Arc<Arena>) -> &Arc<Tree> {
        &self.link_or_add(family, arena).tree
    }

    /// The range tombstones of a family, made with its tree in `arena` if there are none yet.
    pub(super) fn ranges_or_add(&self, family: Family, arena: &Arc<Arena>) -> &Recent {
        &self.link_or_add(family, arena).ranges
    }

    fn link_or_add(&self, family: Family, arena: &Arc<Arena>) -> &Link {
        let mut place = &self.chains[family.0 as usize % CHAINS];
        loop {
            let new = || {
                let tree = Arc::new(Tree::new(arena.clone()));
                Box::new(Link { family, tree, ranges: Recent::default(), next: OnceLock::new() })
            };
            let link = place.get_or_init(new);
            if link.family == family {
                return link;
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
