//! What may be touched: datasets by name, and how. A scope is a list of datasets; there is no way to write "everything".

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The most datasets one scope may name.
pub const SCOPE_DATASETS_MAX: usize = 16;
/// The longest project id, bytes (30, plus room for a legacy `domain.com:` prefix).
pub const PROJECT_BYTES_MAX: usize = 100;
/// The longest dataset or table id, bytes (BigQuery's own limit is 1,024 characters).
pub const NAME_BYTES_MAX: usize = 1024;

/// A text that names no dataset, table or scope.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScopeError {
    /// Not `project.dataset`.
    #[error("`{0}` is not a dataset: write it as project.dataset, without wildcards")]
    Dataset(String),
    /// Not `project.dataset:read`.
    #[error(
        "`{0}` is not a scope: write it as project.dataset:read (read is the only access there is)"
    )]
    Scope(String),
    /// More datasets than [`SCOPE_DATASETS_MAX`], or none.
    #[error("a scope names between 1 and 16 datasets, not {0}")]
    Count(usize),
    /// A policy pattern that would cover everything, or cannot be read.
    #[error(
        "`{0}` is not a dataset pattern: write project.dataset or project.prefix_*; a bare * is never accepted"
    )]
    Pattern(String),
}

fn shown(text: &str) -> String {
    crate::text::safe_line(text, 80)
}

fn is_project(text: &str) -> bool {
    let (domain, id) = text
        .rsplit_once(':')
        .map_or((None, text), |(domain, id)| (Some(domain), id));
    let id_good = id.bytes().next().is_some_and(|b| b.is_ascii_lowercase())
        && id
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    let domain_good = domain.is_none_or(|domain| {
        !domain.is_empty()
            && domain
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.')
    });
    text.len() <= PROJECT_BYTES_MAX && id_good && domain_good
}

fn is_dataset_id(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= NAME_BYTES_MAX
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// A dataset: `project.dataset`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DatasetRef {
    project: String,
    dataset: String,
}

impl DatasetRef {
    /// The dataset `dataset` of `project`.
    ///
    /// # Errors
    /// [`ScopeError::Dataset`] where either is not a name BigQuery could have. Anonymous datasets (`_…`) are names too.
    pub fn new(project: &str, dataset: &str) -> Result<Self, ScopeError> {
        if is_project(project) && is_dataset_id(dataset) {
            Ok(Self {
                project: project.to_owned(),
                dataset: dataset.to_owned(),
            })
        } else {
            Err(ScopeError::Dataset(shown(&format!("{project}.{dataset}"))))
        }
    }

    /// The project id.
    #[must_use]
    pub fn project(&self) -> &str {
        &self.project
    }

    /// The dataset id within the project.
    #[must_use]
    pub fn dataset(&self) -> &str {
        &self.dataset
    }
}

impl fmt::Display for DatasetRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.project, self.dataset)
    }
}

impl FromStr for DatasetRef {
    type Err = ScopeError;

    fn from_str(text: &str) -> Result<Self, ScopeError> {
        // A domain-scoped project holds dots, a dataset id never does: the last dot divides.
        let (project, dataset) = text
            .rsplit_once('.')
            .ok_or_else(|| ScopeError::Dataset(shown(text)))?;
        Self::new(project, dataset)
    }
}

/// A table: `project.dataset.table`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TableRef {
    dataset: DatasetRef,
    table: String,
}

impl TableRef {
    /// The table `table` of `dataset`. Table ids may hold letters, marks, numbers, connectors, dashes and spaces; control characters,
    /// dots, slashes and quotes are refused here.
    ///
    /// # Errors
    /// [`ScopeError::Dataset`] for an id BigQuery could not have.
    pub fn new(dataset: DatasetRef, table: &str) -> Result<Self, ScopeError> {
        let bad = |c: char| {
            crate::text::is_deceptive(c)
                || matches!(c, '.' | '/' | '\\' | '`' | '\'' | '"' | '?' | '#' | '%')
        };
        if table.is_empty() || table.len() > NAME_BYTES_MAX || table.contains(bad) {
            return Err(ScopeError::Dataset(shown(&format!("{dataset}.{table}"))));
        }
        Ok(Self {
            dataset,
            table: table.to_owned(),
        })
    }

    /// The dataset it lies in.
    #[must_use]
    pub const fn dataset(&self) -> &DatasetRef {
        &self.dataset
    }

    /// The table id within the dataset.
    #[must_use]
    pub fn table(&self) -> &str {
        &self.table
    }
}

impl fmt::Display for TableRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.dataset, self.table)
    }
}

impl FromStr for TableRef {
    type Err = ScopeError;

    fn from_str(text: &str) -> Result<Self, ScopeError> {
        let (dataset, table) = text
            .rsplit_once('.')
            .ok_or_else(|| ScopeError::Dataset(shown(text)))?;
        Self::new(dataset.parse()?, table)
    }
}

/// What may be done with a dataset. Reading is the only access there is so far; writing is refused as a statement kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Access {
    /// Metadata and rows, no change.
    Read,
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read => f.write_str("read"),
        }
    }
}

/// The datasets of a request or a grant, and the access to all of them. Never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope {
    datasets: BTreeSet<DatasetRef>,
    access: Access,
}

impl Scope {
    /// `access` to `datasets`.
    ///
    /// # Errors
    /// [`ScopeError::Count`] for none or more than [`SCOPE_DATASETS_MAX`].
    pub fn new(datasets: BTreeSet<DatasetRef>, access: Access) -> Result<Self, ScopeError> {
        match datasets.len() {
            1..=SCOPE_DATASETS_MAX => Ok(Self { datasets, access }),
            count => Err(ScopeError::Count(count)),
        }
    }

    /// The datasets, in order.
    #[must_use]
    pub const fn datasets(&self) -> &BTreeSet<DatasetRef> {
        &self.datasets
    }

    /// The access to them.
    #[must_use]
    pub const fn access(&self) -> Access {
        self.access
    }

    /// Whether this scope covers the dataset.
    #[must_use]
    pub fn covers(&self, dataset: &DatasetRef) -> bool {
        self.datasets.contains(dataset)
    }

    /// Whether a dataset of this project is in scope.
    #[must_use]
    pub fn covers_project(&self, project: &str) -> bool {
        self.datasets
            .iter()
            .any(|dataset| dataset.project() == project)
    }

    /// Whether everything `self` allows is allowed by `other`.
    #[must_use]
    pub fn is_within(&self, other: &Self) -> bool {
        self.access <= other.access && self.datasets.is_subset(&other.datasets)
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, dataset) in self.datasets.iter().enumerate() {
            if at > 0 {
                f.write_str(",")?;
            }
            write!(f, "{dataset}")?;
        }
        write!(f, ":{}", self.access)
    }
}

impl FromStr for Scope {
    type Err = ScopeError;

    /// Reads `project.dataset:read` or `project.a,project.b:read`.
    fn from_str(text: &str) -> Result<Self, ScopeError> {
        let (datasets, access) = text
            .rsplit_once(':')
            .ok_or_else(|| ScopeError::Scope(shown(text)))?;
        if access != "read" {
            return Err(ScopeError::Scope(shown(text)));
        }
        Self::new(
            datasets
                .split(',')
                .map(str::parse)
                .collect::<Result<_, _>>()?,
            Access::Read,
        )
    }
}

/// A policy's dataset pattern: an exact dataset, or a prefix ending in `*` after at least one character of the dataset id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatasetPattern {
    project: String,
    dataset: String,
    is_prefix: bool,
}

impl DatasetPattern {
    /// Whether the pattern names this dataset.
    #[must_use]
    pub fn matches(&self, dataset: &DatasetRef) -> bool {
        dataset.project == self.project
            && if self.is_prefix {
                dataset.dataset.starts_with(&self.dataset)
            } else {
                dataset.dataset == self.dataset
            }
    }
}

impl fmt::Display for DatasetPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}.{}{}",
            self.project,
            self.dataset,
            if self.is_prefix { "*" } else { "" }
        )
    }
}

impl FromStr for DatasetPattern {
    type Err = ScopeError;

    fn from_str(text: &str) -> Result<Self, ScopeError> {
        let (stem, is_prefix) = text
            .strip_suffix('*')
            .map_or((text, false), |stem| (stem, true));
        let DatasetRef { project, dataset } =
            stem.parse().map_err(|_| ScopeError::Pattern(shown(text)))?;
        Ok(Self {
            project,
            dataset,
            is_prefix,
        })
    }
}

macro_rules! serde_as_text {
    ($($name:ident),+) => {$(
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
    )+};
}
serde_as_text!(DatasetRef, TableRef, Scope, DatasetPattern);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_scope_is_a_list_of_datasets_and_never_everything() {
        let scope: Scope = "p-1.finance,example.com:p.hr:read"
            .parse()
            .expect("two datasets");
        assert_eq!(scope.to_string(), "example.com:p.hr,p-1.finance:read");
        for text in [
            "*",
            "p.*:read",
            "*.d:read",
            "p:read",
            "p.d",
            "p.d:write",
            "p.d:",
            ":read",
            "p.d,:read",
            "p.d;x:read",
            "p.d:read ",
        ] {
            assert!(text.parse::<Scope>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_pattern_needs_a_project_and_one_letter_before_the_star() {
        let pattern: DatasetPattern = "p.sales_*".parse().expect("a prefix");
        assert!(pattern.matches(&"p.sales_eu".parse().expect("a dataset")));
        assert!(!pattern.matches(&"q.sales_eu".parse().expect("a dataset")));
        for text in ["*", "p.*", "*.d", "p*.d", "p.a*b", "p.**", "p"] {
            assert!(text.parse::<DatasetPattern>().is_err(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn whatever_parses_as_a_scope_prints_to_a_text_that_parses_to_the_same(text in "[a-z.:,*0-9_-]{0,40}") {
            if let Ok(scope) = text.parse::<Scope>() {
                prop_assert_eq!(scope.to_string().parse::<Scope>(), Ok(scope));
            }
        }

        #[test]
        fn no_text_makes_the_parsers_panic(text in any::<String>()) {
            let _ = (text.parse::<Scope>(), text.parse::<TableRef>(), text.parse::<DatasetPattern>());
        }
    }
}
