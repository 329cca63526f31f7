//! What may be touched: datasets by name, and buckets beside them, and how. A scope is a list; there is no way to write "everything".

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use crate::bucket::{BucketError, BucketRef, SCHEME};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The most datasets one scope may name.
pub const SCOPE_DATASETS_MAX: usize = 16;
/// The most buckets one scope may name.
pub const SCOPE_BUCKETS_MAX: usize = 8;
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
        "`{0}` is not a scope: write it as project.dataset:read or project.dataset:write, each dataset once; a bucket as gs://bucket:read or :write"
    )]
    Scope(String),
    /// More datasets than [`SCOPE_DATASETS_MAX`], or none.
    #[error("a scope names between 1 and 16 datasets, not {0}")]
    Count(usize),
    /// More buckets than [`SCOPE_BUCKETS_MAX`].
    #[error("a scope names at most 8 buckets, not {0}")]
    Buckets(usize),
    /// Not a bucket.
    #[error(transparent)]
    Bucket(#[from] BucketError),
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

    /// Whether both are one table, or parts of it: what follows `$` names a partition, what follows `@` a time.
    #[must_use]
    pub fn is_same_but_for_part(&self, other: &Self) -> bool {
        let whole = |table: &str| table.split(['$', '@']).next().map(str::to_owned);
        self.dataset == other.dataset && whole(&self.table) == whole(&other.table)
    }

    /// Whether a table may be both, or part of both. What ends with `*` is all that begin so.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        let whole = |table: &'_ str| {
            table
                .split(['$', '@'])
                .next()
                .unwrap_or_default()
                .to_owned()
        };
        let (one, two) = (whole(&self.table), whole(&other.table));
        let names_agree = match (one.strip_suffix('*'), two.strip_suffix('*')) {
            (None, None) => one == two,
            (Some(one), None) => two.starts_with(one),
            (None, Some(two)) => one.starts_with(two),
            (Some(one), Some(two)) => one.starts_with(two) || two.starts_with(one),
        };
        self.dataset == other.dataset && names_agree
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

/// What may be done with a dataset, or a bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Access {
    /// Metadata and rows, no change; of a bucket, what tables are loaded from.
    Read,
    /// Besides, tables are filled and their rows changed, and made where what fills them makes them; the columns of one that is there stay. To a
    /// bucket, tables and results are exported.
    Write,
    /// Besides, tables are made, changed and removed as such, and given other columns by what fills them; nothing of the dataset itself. No bucket
    /// has this.
    Ddl,
}

impl Access {
    const ALL: [Self; 3] = [Self::Read, Self::Write, Self::Ddl];

    /// As it is written in a scope.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Ddl => "ddl",
        }
    }
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The datasets of a request or a grant, and the access to each of them; never none. And the buckets that data may come from or go to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope {
    datasets: BTreeMap<DatasetRef, Access>,
    buckets: BTreeMap<BucketRef, Access>,
}

impl Scope {
    /// Access to `datasets`, and to `buckets`.
    ///
    /// # Errors
    /// [`ScopeError::Count`] for no dataset or more than [`SCOPE_DATASETS_MAX`], [`ScopeError::Buckets`] for more than [`SCOPE_BUCKETS_MAX`].
    pub fn new(
        datasets: BTreeMap<DatasetRef, Access>,
        buckets: BTreeMap<BucketRef, Access>,
    ) -> Result<Self, ScopeError> {
        match (datasets.len(), buckets.len()) {
            (1..=SCOPE_DATASETS_MAX, 0..=SCOPE_BUCKETS_MAX) => Ok(Self { datasets, buckets }),
            (1..=SCOPE_DATASETS_MAX, count) => Err(ScopeError::Buckets(count)),
            (count, _) => Err(ScopeError::Count(count)),
        }
    }

    /// The buckets in order, and the access to each.
    pub fn buckets(&self) -> impl Iterator<Item = (&BucketRef, Access)> {
        self.buckets
            .iter()
            .map(|(bucket, access)| (bucket, *access))
    }

    /// Whether this access to the bucket is in scope.
    #[must_use]
    pub fn allows_bucket(&self, bucket: &BucketRef, access: Access) -> bool {
        self.buckets.get(bucket).is_some_and(|held| access <= *held)
    }

    /// The datasets in order, and the access to each.
    pub fn datasets(&self) -> impl Iterator<Item = (&DatasetRef, Access)> {
        self.datasets
            .iter()
            .map(|(dataset, access)| (dataset, *access))
    }

    /// Whether the dataset may be read.
    #[must_use]
    pub fn covers(&self, dataset: &DatasetRef) -> bool {
        self.allows(dataset, Access::Read)
    }

    /// Whether this access to the dataset is in scope.
    #[must_use]
    pub fn allows(&self, dataset: &DatasetRef, access: Access) -> bool {
        self.datasets
            .get(dataset)
            .is_some_and(|held| access <= *held)
    }

    /// Whether a dataset of this project is in scope.
    #[must_use]
    pub fn covers_project(&self, project: &str) -> bool {
        self.datasets
            .keys()
            .any(|dataset| dataset.project() == project)
    }

    /// Whether everything `self` allows is allowed by `other`.
    #[must_use]
    pub fn is_within(&self, other: &Self) -> bool {
        let mut datasets = self.datasets();
        let mut buckets = self.buckets();
        datasets.all(|(dataset, access)| other.allows(dataset, access))
            && buckets.all(|(bucket, access)| other.allows_bucket(bucket, access))
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut comma = "";
        for access in Access::ALL {
            let datasets = self
                .datasets()
                .map(|(dataset, held)| (dataset as &dyn fmt::Display, held));
            let buckets = self
                .buckets()
                .map(|(bucket, held)| (bucket as &dyn fmt::Display, held));
            let all = datasets.chain(buckets).filter(|(_, held)| *held == access);
            let mut is_any = false;
            for (item, _) in all {
                write!(f, "{comma}{item}")?;
                (comma, is_any) = (",", true);
            }
            if is_any {
                write!(f, ":{access}")?;
            }
        }
        Ok(())
    }
}

impl FromStr for Scope {
    type Err = ScopeError;

    /// Reads `project.dataset:read` or `project.a,project.b:read,project.c,gs://bucket:write`: an access is that of everything since the last.
    fn from_str(text: &str) -> Result<Self, ScopeError> {
        let bad = || ScopeError::Scope(shown(text));
        let (mut datasets, mut buckets) = (BTreeMap::new(), BTreeMap::new());
        let mut waiting = Vec::new();
        for item in text.split(',') {
            let access = Access::ALL.into_iter().find_map(|access| {
                let named = item.strip_suffix(access.as_str())?.strip_suffix(':')?;
                Some((named, access))
            });
            waiting.push(access.map_or(item, |(named, _)| named));
            let Some((_, access)) = access else { continue };
            for named in waiting.drain(..) {
                let before = if named.starts_with(SCHEME) {
                    if access == Access::Ddl {
                        return Err(bad());
                    }
                    buckets.insert(named.parse()?, access)
                } else {
                    datasets.insert(named.parse()?, access)
                };
                if before.is_some() {
                    return Err(bad());
                }
            }
        }
        // What has no access is said to be no dataset where it is none.
        match waiting.first() {
            None => Self::new(datasets, buckets),
            Some(named) if named.starts_with(SCHEME) => Err(bad()),
            Some(named) => Err(named.parse::<DatasetRef>().err().unwrap_or_else(bad)),
        }
    }
}

/// A policy's dataset pattern: an exact dataset, or a prefix ending in `*` after at least one character of the dataset id.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct DatasetPattern {
    project: String,
    dataset: String,
    is_prefix: bool,
}

impl DatasetPattern {
    /// The project of the datasets that it names.
    #[must_use]
    pub fn project(&self) -> &str {
        &self.project
    }

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

    /// Whether it names every dataset that `other` names.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        let is_wider = if self.is_prefix {
            other.dataset.starts_with(&self.dataset)
        } else {
            !other.is_prefix && other.dataset == self.dataset
        };
        self.project == other.project && is_wider
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
serde_as_text!(BucketRef, DatasetRef, TableRef, Scope, DatasetPattern);

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
        let scope: Scope = "p.c:write,p.b,p.a:read".parse().expect("three");
        assert_eq!(scope.to_string(), "p.a,p.b:read,p.c:write");
        let text = "p.b,gs://in-1:read,p.a,gs://out-1:write";
        let scope: Scope = text.parse().expect("two and two");
        assert_eq!(scope.to_string(), text);
        for text in [
            "*",
            "p.*:read",
            "*.d:read",
            "p:read",
            "p.d",
            "p.d:admin",
            "p.d:read:write",
            "p.d:read,p.d:write",
            "p.d:read,p.e",
            "p.d:",
            ":read",
            "p.d,:read",
            "p.d;x:read",
            "p.d:read ",
            "gs://out-1:write",
            "p.d:read,gs://out-1",
            "p.d:read,gs://out-*:write",
            "p.d:read,gs://out-1:read,gs://out-1:write",
        ] {
            assert!(text.parse::<Scope>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn who_may_write_may_read_and_not_the_other_way() {
        let scope: Scope = "p.a:read,p.b:write".parse().expect("a scope");
        let dataset = |text: &str| text.parse::<DatasetRef>().expect("a dataset");
        let allows = |text: &str, access| scope.allows(&dataset(text), access);
        assert!(allows("p.a", Access::Read) && !allows("p.a", Access::Write));
        assert!(allows("p.b", Access::Read) && allows("p.b", Access::Write));
        assert!(!allows("p.c", Access::Read));
        for (text, is_within) in [
            ("p.a,p.b:read", true),
            ("p.b:write", true),
            ("p.a:write", false),
            ("p.c:read", false),
        ] {
            let other: Scope = text.parse().expect("a scope");
            assert_eq!(other.is_within(&scope), is_within, "{text}");
        }
    }

    #[test]
    fn a_bucket_that_may_be_written_may_be_read_and_no_other() {
        let scope: Scope = "p.a,gs://in-1:read,gs://out-1:write"
            .parse()
            .expect("a scope");
        let allows =
            |text: &str, access| scope.allows_bucket(&text.parse().expect("a bucket"), access);
        assert!(allows("gs://in-1", Access::Read) && !allows("gs://in-1", Access::Write));
        assert!(allows("gs://out-1", Access::Read) && allows("gs://out-1", Access::Write));
        assert!(!allows("gs://elsewhere", Access::Read));
        for (text, is_within) in [
            ("p.a,gs://out-1:read", true),
            ("p.a:read", true),
            ("p.a:read,gs://in-1:write", false),
            ("p.a,gs://elsewhere:read", false),
        ] {
            let other: Scope = text.parse().expect("a scope");
            assert_eq!(other.is_within(&scope), is_within, "{text}");
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
        fn whatever_parses_as_a_scope_prints_to_a_text_that_parses_to_the_same(text in "((gs://)?[a-z.*0-9_-]{0,6}[.:,]|:read|:write){0,6}") {
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
