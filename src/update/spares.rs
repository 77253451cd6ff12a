//! Memory of updates that are done with, for those to come: decoding allocates nothing in the long run.

use super::Change;

/// More changes than this are rare, and their memory is given back.
const CHANGES_MAX: usize = 16;

/// Empty lists of changes that have room.
#[derive(Debug, Default)]
pub struct Spares(Vec<Vec<Change<'static>>>);

impl Spares {
    /// One of them, or a new one.
    pub fn take<'a>(&mut self) -> Vec<Change<'a>> {
        self.0.pop().unwrap_or_default()
    }

    /// Keeps the memory of at most `count` lists.
    pub fn keep<'a>(&mut self, lists: impl Iterator<Item = Vec<Change<'a>>>, count: usize) {
        let room = count.saturating_sub(self.0.len());
        let fitting = lists.filter(|list| (1..=CHANGES_MAX).contains(&list.capacity()));
        self.0.extend(fitting.take(room).map(emptied));
    }
}

/// The list's memory without what it borrowed. Collecting into the same layout is done in place.
fn emptied(mut list: Vec<Change<'_>>) -> Vec<Change<'static>> {
    list.clear();
    list.into_iter()
        .map(|_| unreachable!("the list is empty"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::update::column;

    #[test]
    fn a_list_comes_back_empty_in_the_same_memory() {
        let text = String::from("a name");
        let name = text.as_str().into();
        let list = vec![Change::Merge {
            column: column::TAGS,
            name,
            value: Some(&text),
        }];
        let memory = list.as_ptr() as usize;
        let mut spares = Spares::default();
        spares.keep([list, Vec::new()].into_iter(), 9);
        drop(text);
        let again: Vec<Change<'_>> = spares.take();
        assert_eq!((again.len(), again.as_ptr() as usize), (0, memory));
        assert_eq!(spares.take().capacity(), 0);
    }

    #[test]
    fn no_more_than_so_many_and_no_long_ones_are_kept() {
        let list = || Vec::with_capacity(4);
        let mut spares = Spares::default();
        spares.keep([list(), list(), list()].into_iter(), 2);
        spares.keep([list()].into_iter(), 2);
        assert_eq!(spares.0.len(), 2);
        let mut spares = Spares::default();
        spares.keep(std::iter::once(Vec::with_capacity(CHANGES_MAX + 1)), 2);
        assert!(spares.0.is_empty());
    }
}
