//! Limits of the workers that may change while they work. One atomic load where a limit is looked at, which is not per message.

use crate::sync::{AtomicU64, Ordering};

/// The limits as they are now.
#[derive(Debug, Default)]
pub struct Tunables {
    /// 0 for no limit.
    links_per_parent_max: AtomicU64,
}

impl Tunables {
    /// As configured.
    pub fn new(links_per_parent_max: Option<u32>) -> Self {
        let tunables = Self::default();
        tunables.set_links_per_parent_max(links_per_parent_max);
        tunables
    }

    /// Children of one parent; `None` for no limit.
    pub fn links_per_parent_max(&self) -> Option<u32> {
        let limit = self.links_per_parent_max.load(Ordering::Relaxed);
        u32::try_from(limit).ok().filter(|limit| *limit > 0)
    }

    /// Another limit from now on.
    pub fn set_links_per_parent_max(&self, limit: Option<u32>) {
        self.links_per_parent_max
            .store(limit.unwrap_or(0).into(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_limit_is_none() {
        let tunables = Tunables::new(Some(3));
        assert_eq!(tunables.links_per_parent_max(), Some(3));
        tunables.set_links_per_parent_max(None);
        assert_eq!(tunables.links_per_parent_max(), None);
    }
}
