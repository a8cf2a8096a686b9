//! Maps the kernel's inode numbers to paths, so that no file has to be kept open.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::time::{Duration, Instant};

pub const ROOT: u64 = 1;
/// How long a file without capabilities counts as one: the host may have given it some since.
const MOMENT: Duration = Duration::from_secs(1);

/// The number of a folder, and a name in it.
type Place = (u64, OsString);

#[derive(Default)]
struct Node {
    /// Inode number in the folder; the kernel's number differs when the same file is visible in
    /// several views.
    ino: u64,
    /// The view of the host's files: a folder that the host has bound to two places is in
    /// two views.
    view: u64,
    /// Where it was seen, the most recent place last: a file with hard links has several.
    places: Vec<Place>,
    lookups: u64,
    /// The size that the kernel was last told, while only the host can have changed it since.
    size: Option<u64>,
    /// When the file was last found to have no capabilities.
    without_capabilities: Option<Instant>,
}

#[derive(Default)]
pub struct Nodes {
    nodes: HashMap<u64, Node>,
    by_place: HashMap<Place, u64>,
    by_file: HashMap<(u64, u64), u64>,
    views: u64,
}

/// Returns the number of a file in a view, if it is free.
fn preferred(view: u64, ino: u64) -> u64 {
    ino ^ view.rotate_right(16) // views are few, and the first is 0
}

impl Nodes {
    fn view(&self, number: u64) -> u64 {
        self.nodes.get(&number).map_or(0, |node| node.view)
    }

    /// Returns the folder's inode number of a file.
    pub fn ino(&self, number: u64) -> u64 {
        self.nodes.get(&number).map_or(number, |node| node.ino)
    }

    /// Returns the number that a file in a folder most likely gets.
    pub fn likely(&self, parent: u64, ino: u64) -> u64 {
        preferred(self.view(parent), ino)
    }

    /// Returns the number of a file that was seen in the same view as a folder, but not at
    /// this place.
    pub fn elsewhere(&self, ino: u64, parent: u64, name: &OsStr) -> Option<u64> {
        let known = *self.by_file.get(&(self.view(parent), ino))?;
        (self.at(parent, name) != Some(known)).then_some(known)
    }

    /// Returns the number under which a file is reported to the kernel, which later reports that it
    /// has forgotten that number.
    pub fn seen(&mut self, ino: u64, parent: u64, name: &OsStr, is_other_view: bool) -> u64 {
        let place = (parent, name.to_owned());
        let at_place = self.at(parent, name).filter(|number| self.ino(*number) == ino);
        let number = at_place.unwrap_or_else(|| self.number(ino, parent, is_other_view));
        self.settle(number, place);
        if let Some(node) = self.nodes.get_mut(&number) {
            node.lookups += 1;
        }
        number
    }

    fn number(&mut self, ino: u64, parent: u64, is_other_view: bool) -> u64 {
        let mut view = self.view(parent);
        if is_other_view {
            self.views += 1;
            view = self.views;
        }
        if let Some(number) = self.by_file.get(&(view, ino)) {
            return *number;
        }
        let mut number = preferred(view, ino);
        while number <= ROOT || self.nodes.contains_key(&number) {
            number = number.wrapping_add(1 << 48);
        }
        self.by_file.insert((view, ino), number);
        self.nodes.insert(number, Node { ino, view, ..Node::default() });
        number
    }

    /// Notes the size that the kernel is told.
    pub fn told(&mut self, number: u64, size: u64) {
        if let Some(node) = self.nodes.get_mut(&number) {
            node.size = Some(size);
        }
    }

    /// Notes that the kernel changes the size of a file itself.
    pub fn is_written(&mut self, number: u64) {
        if let Some(node) = self.nodes.get_mut(&number) {
            node.size = None;
        }
    }

    /// Returns how much of a read lies before the end of the file that the kernel knows. It shows
    /// no process what lies after that end.
    pub fn readable(&self, number: u64, offset: u64, size: u32) -> u32 {
        let end = self.nodes.get(&number).and_then(|node| node.size);
        match end.and_then(|end| end.checked_sub(offset)) {
            None | Some(0) => size,
            Some(left) => size.min(u32::try_from(left).unwrap_or(u32::MAX)),
        }
    }

    /// Notes whether a file may have capabilities.
    pub fn may_have_capabilities(&mut self, number: u64, may: bool) {
        if let Some(node) = self.nodes.get_mut(&number) {
            node.without_capabilities = (!may).then(Instant::now);
        }
    }

    /// Returns whether a file had no capabilities a moment ago.
    pub fn is_without_capabilities(&self, number: u64) -> bool {
        let known = self.nodes.get(&number).and_then(|node| node.without_capabilities);
        known.is_some_and(|since| since.elapsed() < MOMENT)
    }

    /// Returns whether the kernel has no further references.
    pub fn forget(&mut self, number: u64, count: u64) -> bool {
        let Some(node) = self.nodes.get_mut(&number) else { return false };
        node.lookups = node.lookups.saturating_sub(count);
        let is_last = node.lookups == 0;
        if is_last {
            let node = self.nodes.remove(&number).unwrap_or_default();
            self.by_file.remove(&(node.view, node.ino));
            for place in node.places {
                self.by_place.remove(&place);
            }
        }
        is_last
    }

    /// Removes a place; returns the number of the file that was there.
    pub fn gone(&mut self, parent: u64, name: &OsStr) -> Option<u64> {
        let place = (parent, name.to_owned());
        let number = self.by_place.remove(&place)?;
        if let Some(node) = self.nodes.get_mut(&number) {
            node.places.retain(|other| other != &place);
        }
        Some(number)
    }

    pub fn moved(&mut self, from: (u64, &OsStr), to: (u64, &OsStr), exchanged: bool) {
        let (one, other) = (self.gone(from.0, from.1), self.gone(to.0, to.1));
        if let Some(number) = one {
            self.settle(number, (to.0, to.1.to_owned()));
        }
        if let Some(number) = other.filter(|_| exchanged) {
            self.settle(number, (from.0, from.1.to_owned()));
        }
    }

    /// Returns the places of a file, the most recent first.
    pub fn places(&self, number: u64) -> Vec<Place> {
        self.nodes
            .get(&number)
            .map_or_else(Vec::new, |node| node.places.iter().rev().cloned().collect())
    }

    /// Returns the file at a place.
    pub fn at(&self, parent: u64, name: &OsStr) -> Option<u64> {
        self.by_place.get(&(parent, name.to_owned())).copied()
    }

    fn settle(&mut self, number: u64, place: Place) {
        if self.by_place.get(&place) == Some(&number) {
            return;
        }
        self.gone(place.0, &place.1);
        self.by_place.insert(place.clone(), number);
        if let Some(node) = self.nodes.get_mut(&number) {
            node.places.push(place);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> &OsStr {
        OsStr::new(text)
    }

    #[test]
    fn a_file_has_one_number_wherever_it_is_seen_in_a_view() {
        let mut nodes = Nodes::default();
        let first = nodes.seen(7, ROOT, name("a"), false);
        assert_eq!(nodes.seen(7, ROOT, name("b"), false), first);
        assert_eq!(nodes.ino(first), 7);
        assert_eq!(nodes.places(first), [(ROOT, "b".into()), (ROOT, "a".into())]);
        let other = nodes.seen(7, ROOT, name("c"), true);
        assert_ne!(other, first);
        assert_eq!(nodes.ino(other), 7);
    }

    #[test]
    fn no_file_gets_the_number_of_the_root_or_of_another() {
        let mut nodes = Nodes::default();
        let mut numbers = vec![ROOT];
        for (place, ino) in [0, 1, 1 << 48, (1 << 48) + 1, u64::MAX].into_iter().enumerate() {
            let number = nodes.seen(ino, ROOT, name(&place.to_string()), false);
            assert!(!numbers.contains(&number), "{ino}");
            assert_eq!(nodes.ino(number), ino);
            numbers.push(number);
        }
    }

    #[test]
    fn a_read_ends_where_the_kernel_was_told_that_the_file_ends() {
        let mut nodes = Nodes::default();
        let number = nodes.seen(7, ROOT, name("a"), false);
        assert_eq!(nodes.readable(number, 0, 4096), 4096, "no size is known");
        nodes.told(number, 220);
        assert_eq!(nodes.readable(number, 0, 4096), 220);
        assert_eq!(nodes.readable(number, 20, 100), 100);
        assert_eq!(nodes.readable(number, 220, 4096), 4096, "after the end the file decides");
        nodes.told(number, u64::MAX);
        assert_eq!(nodes.readable(number, 0, 4096), 4096);
        nodes.told(number, 220);
        nodes.is_written(number);
        assert_eq!(nodes.readable(number, 0, 4096), 4096, "a written file may be longer");
        assert_eq!(nodes.readable(8, 0, 4096), 4096);
    }

    #[test]
    fn that_a_file_is_without_capabilities_is_known_until_it_may_get_some() {
        let mut nodes = Nodes::default();
        let number = nodes.seen(7, ROOT, name("a"), false);
        assert!(!nodes.is_without_capabilities(number));
        nodes.may_have_capabilities(number, true);
        assert!(!nodes.is_without_capabilities(number));
        assert!(!nodes.is_without_capabilities(8));
    }

    #[test]
    fn what_the_kernel_has_forgotten_is_nowhere() {
        let mut nodes = Nodes::default();
        let number = nodes.seen(7, ROOT, name("a"), false);
        nodes.seen(7, ROOT, name("a"), false);
        assert!(!nodes.forget(number, 1));
        assert!(nodes.forget(number, 1));
        assert!(!nodes.forget(number, 1));
        assert_eq!(nodes.at(ROOT, name("a")), None);
        assert!(nodes.places(number).is_empty());
    }

    #[test]
    fn what_was_moved_is_at_its_new_place() {
        let mut nodes = Nodes::default();
        let (one, other) =
            (nodes.seen(7, ROOT, name("a"), false), nodes.seen(8, ROOT, name("b"), false));
        nodes.moved((ROOT, name("a")), (ROOT, name("b")), true);
        assert_eq!(nodes.at(ROOT, name("b")), Some(one));
        assert_eq!(nodes.at(ROOT, name("a")), Some(other));
        nodes.moved((ROOT, name("b")), (ROOT, name("a")), false);
        assert_eq!(nodes.at(ROOT, name("a")), Some(one));
        assert_eq!(nodes.at(ROOT, name("b")), None);
        assert!(nodes.places(other).is_empty());
        assert_eq!(nodes.gone(ROOT, name("nonesuch")), None);
    }
}
