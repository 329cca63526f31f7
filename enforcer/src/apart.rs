//! Folders none of which lies in another, each with whose it is: asked without a look at all of them, since there may be as many as agents.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Such folders. A path sorts before all that lies below it, and those before everything else that follows.
#[derive(Debug, Clone)]
pub struct Apart<T>(BTreeMap<PathBuf, T>);

impl<T> Default for Apart<T> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<T> Apart<T> {
    /// Whose this very path is.
    #[must_use]
    pub fn at(&self, path: &Path) -> Option<&T> {
        self.0.get(path)
    }

    /// Whose a folder's is that is this one, or that it lies in.
    #[must_use]
    pub fn holding(&self, path: &Path) -> Option<&T> {
        path.ancestors().find_map(|above| self.0.get(above))
    }

    /// Likewise, or that lies in it.
    #[must_use]
    pub fn related(&self, path: &Path) -> Option<&T> {
        let below = || {
            let (next, whose) = self.0.range(path.to_owned()..).next()?;
            next.starts_with(path).then_some(whose)
        };
        self.holding(path).or_else(below)
    }

    /// Takes in one more.
    pub fn insert(&mut self, path: PathBuf, whose: T) {
        self.0.insert(path, whose);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_related_to_those_above_and_below_it_and_to_no_neighbour() {
        let mut apart = Apart::default();
        for name in ["a/b", "a/b-c", "a/d/e"] {
            apart.insert(PathBuf::from(name), name);
        }
        for (path, related, holding) in [
            ("a/b", Some("a/b"), Some("a/b")),
            ("a/b/x/y", Some("a/b"), Some("a/b")),
            ("a", Some("a/b"), None),
            ("a/d", Some("a/d/e"), None),
            ("a/b-", None, None),
            ("a/c", None, None),
            ("z", None, None),
        ] {
            let path = Path::new(path);
            assert_eq!(apart.related(path).copied(), related, "{path:?}");
            assert_eq!(apart.holding(path).copied(), holding, "{path:?}");
        }
    }
}
