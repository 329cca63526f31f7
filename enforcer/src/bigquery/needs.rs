//! What a request needs a window for, as far as the request itself says it: the scope of the request for a window that is made of it. It names
//! no more than is needed. What a view reads is not known here, so what is approved by it is judged in full all the same.

use std::collections::BTreeMap;

use enforcer_proto::bucket::BucketRef;
use enforcer_proto::query::{Destination, Layout, Method, Touch};
use enforcer_proto::refusal::{Code, Refusal};
use enforcer_proto::scope::{Access, DatasetRef, SCOPE_DATASETS_MAX, Scope};

use super::job::{Moves, QueryJob, TransferJob};
use super::relations::Datasets;
use super::text;
use super::unread::Unread;

/// What is needed, gathered.
#[derive(Debug, Default)]
struct Needs {
    datasets: BTreeMap<DatasetRef, Access>,
    buckets: BTreeMap<BucketRef, Access>,
}

impl Needs {
    fn dataset(&mut self, dataset: DatasetRef, access: Access) {
        let held = self.datasets.entry(dataset).or_insert(access);
        *held = access.max(*held);
    }

    fn bucket(&mut self, bucket: BucketRef, access: Access) {
        let held = self.buckets.entry(bucket).or_insert(access);
        *held = access.max(*held);
    }

    /// None where no dataset is needed; `project` is the one that is billed.
    fn scope(self, project: &str) -> Result<Option<Scope>, Refusal> {
        let count = self.datasets.len();
        if count == 0 {
            return Ok(None);
        }
        let scope = Scope::new(self.datasets, self.buckets).map_err(|_| {
            Refusal::new(
                Code::NotVouched,
                format!("The query names {count} datasets, and a window has at most {SCOPE_DATASETS_MAX}"),
            )
        })?;
        if scope.covers_project(project) {
            return Ok(Some(scope));
        }
        Err(Refusal::new(
            Code::ScopeProject,
            format!("Access Denied: project {project} would be billed, and nothing of it is read"),
        ))
    }
}

/// What fills a table and leaves its columns needs less than what may change them.
const fn filling(layout: Layout) -> Access {
    match layout {
        Layout::Kept => Access::Write,
        Layout::Replaced => Access::Ddl,
    }
}

/// The scope that a query needs, as its text names it; none where it needs no dataset.
///
/// # Errors
/// [`Code::NotVouched`] where that cannot be told; [`Code::ScopeProject`] where no window for it could run it.
pub async fn of_query(job: &QueryJob, project: &str) -> Result<Option<Scope>, Refusal> {
    let unread = || {
        Refusal::new(
            Code::NotVouched,
            "Access Denied: BigQuery: there is no open window, and which datasets the query needs cannot be read from its text, so no request is made of it",
        )
    };
    let named = text::read(job.sql())?;
    // No window would let it through, so nobody is asked about it, and nor is BigQuery.
    if let Some(function) = named.unknown {
        return Err(Unread::Function(function).refusal());
    }
    let default = job.default_dataset();
    let within = default
        .as_ref()
        .and_then(|default| default.project.as_deref())
        .unwrap_or(project);
    let tables = Datasets::of(job.sql(), named.tokens, project, default.as_ref()).await;
    let tables = tables.ok_or_else(unread)?;
    let mut needs = Needs::default();
    if let Some(default) = &default {
        let dataset = DatasetRef::new(within, &default.dataset).map_err(|_| unread())?;
        needs.dataset(dataset, Access::Read);
    }
    for dataset in named.datasets(within)?.into_iter().chain(tables.named) {
        needs.dataset(dataset, Access::Read);
    }
    let changed = if tables.defines {
        Access::Ddl
    } else {
        Access::Write
    };
    if let Some(dataset) = tables.written {
        needs.dataset(dataset, changed);
    }
    if let Some(Destination { table, layout }) = job.destination() {
        needs.dataset(table.dataset().clone(), filling(*layout));
    }
    if let Some(bucket) = tables.export {
        needs.bucket(bucket, Access::Write);
    }
    needs.scope(project)
}

/// The scope that a job needs that is no query; none for a load of what the client sends.
///
/// # Errors
/// [`Code::ScopeProject`] where no window for it could run it.
pub fn of_transfer(job: &TransferJob, project: &str) -> Result<Option<Scope>, Refusal> {
    let mut needs = Needs::default();
    match job.moves() {
        Moves::Copy { reads, into } => {
            for table in reads {
                needs.dataset(table.dataset().clone(), Access::Read);
            }
            needs.dataset(into.dataset().clone(), filling(job.layout()));
        }
        Moves::Import { from, into } => {
            for bucket in from {
                needs.bucket(bucket.clone(), Access::Read);
            }
            needs.dataset(into.dataset().clone(), filling(job.layout()));
        }
        Moves::Export { table, to } => {
            for bucket in to {
                needs.bucket(bucket.clone(), Access::Write);
            }
            needs.dataset(table.dataset().clone(), Access::Read);
        }
        Moves::Sent { .. } => {}
    }
    needs.scope(project)
}

/// The scope that a call needs that reads one dataset or one table; none for every other.
#[must_use]
pub fn of_call(method: Method, touch: &Touch) -> Option<Scope> {
    let dataset = match touch {
        Touch::Dataset(dataset) => dataset,
        // A result of a window that has closed lies in a dataset without a name, and nobody is asked for that.
        Touch::Table(table) | Touch::Rows(table)
            if !table.dataset().dataset().starts_with('_') && method != Method::TablesDelete =>
        {
            table.dataset()
        }
        Touch::Table(_)
        | Touch::Rows(_)
        | Touch::Nothing
        | Touch::FilteredList
        | Touch::OwnJobs
        | Touch::Job(_)
        | Touch::Query(_)
        | Touch::Change(_)
        | Touch::Scan { .. }
        | Touch::Fill { .. }
        | Touch::Transfer(_) => return None,
    };
    Scope::new([(dataset.clone(), Access::Read)].into(), BTreeMap::new()).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::bigquery::relations::{Reading, Relations};

    async fn needed(body: serde_json::Value) -> Result<Option<String>, Code> {
        let body = body.as_object().expect("an object").clone();
        let job = QueryJob::from_query(body).expect("a query");
        let scope = of_query(&job, "p").await.map_err(|refusal| refusal.code)?;
        Ok(scope.map(|scope| scope.to_string()))
    }

    async fn of(sql: &str) -> Result<Option<String>, Code> {
        needed(json!({"query": sql, "useLegacySql": false})).await
    }

    #[tokio::test]
    async fn a_query_needs_what_it_names_and_nothing_else() {
        for (sql, wanted) in [
            ("SELECT * FROM finance.daily", "p.finance:read"),
            (
                "SELECT * FROM finance.daily JOIN `p.sales.orders` USING (id)",
                "p.finance,p.sales:read",
            ),
            (
                "WITH hr AS (SELECT 1 AS a) SELECT * FROM finance.daily AS d, d.parts, hr",
                "p.finance:read",
            ),
            (
                "SELECT * FROM finance.daily, q.finance.daily",
                "p.finance,q.finance:read",
            ),
            (
                "SELECT sales.own(1) FROM finance.daily, hr.INFORMATION_SCHEMA.TABLES",
                "p.finance,p.hr,p.sales:read",
            ),
            (
                "INSERT INTO scratch.t (a) SELECT amount FROM finance.daily",
                "p.finance:read,p.scratch:write",
            ),
            ("CREATE TABLE scratch.t AS SELECT 1 AS a", "p.scratch:ddl"),
            ("DROP TABLE scratch.t", "p.scratch:ddl"),
            (
                "EXPORT DATA OPTIONS (uri = 'gs://bucket/x*', format = 'CSV') AS SELECT * FROM finance.daily",
                "p.finance:read,gs://bucket:write",
            ),
        ] {
            assert_eq!(of(sql).await, Ok(Some(wanted.to_owned())), "{sql}");
            let scope: Scope = wanted.parse().expect("a scope");
            let reading = Reading::of(sql, 100, &scope, "p", None);
            assert!(
                matches!(reading.relations, Relations::Within | Relations::None),
                "what is asked for is enough: {sql}"
            );
        }
        assert_eq!(of("SELECT 1").await, Ok(None));
    }

    #[tokio::test]
    async fn what_cannot_be_read_makes_no_request() {
        for sql in [
            "EXECUTE IMMEDIATE 'SELECT 1'",
            "SELECT 1; SELECT * FROM finance.daily",
            "not sql",
            "SELECT * FROM finance.daily UNION ALL (TABLE hr.salaries)",
            "SELECT * FROM EXTERNAL_QUERY('c', 'SELECT 1')",
            "SELECT * FROM `region-us`.INFORMATION_SCHEMA.JOBS",
            "SELECT * FROM INFORMATION_SCHEMA.SCHEMATA",
        ] {
            assert_eq!(of(sql).await, Err(Code::NotVouched), "{sql}");
        }
        let many: Vec<String> = (0..17).map(|at| format!("d{at}.t")).collect();
        let many = format!("SELECT * FROM {}", many.join(", "));
        assert_eq!(of(&many).await, Err(Code::NotVouched));
        assert_eq!(
            of("SELECT * FROM q.finance.daily").await,
            Err(Code::ScopeProject),
            "p would be billed"
        );
    }

    #[tokio::test]
    async fn the_default_dataset_and_the_destination_are_needed_too() {
        let body = json!({
            "query": "SELECT * FROM daily", "useLegacySql": false, "defaultDataset": {"datasetId": "finance"},
        });
        assert_eq!(needed(body).await, Ok(Some("p.finance:read".to_owned())));
        let body = json!({"configuration": {"query": {
            "query": "SELECT * FROM finance.daily", "useLegacySql": false,
            "destinationTable": {"projectId": "p", "datasetId": "scratch", "tableId": "t"},
        }}});
        let body = body.as_object().expect("an object").clone();
        let job = QueryJob::from_insert(body).expect("a query");
        let scope = of_query(&job, "p").await.expect("read").expect("needed");
        assert_eq!(scope.to_string(), "p.finance:read,p.scratch:write");
    }
}
