//! What a request asks for: its host, its route and its body, read against allow-lists before anything is looked up or sent.

use bytes::Bytes;
use enforcer_proto::query::{Method, Touch};
use enforcer_proto::refusal::{Code, Refusal};
use enforcer_proto::scope::TableRef;
use http::header::{self, HeaderMap, HeaderValue};
use serde_json::{Map, Value};

use super::upload::{Part, WholePlace};
use super::{Session, conditions};
use crate::bigquery::job::{self, Job, Moves, QueryJob};
use crate::bigquery::route::{Route, Target, route};
use crate::bigquery::{json, methods, upload};
use crate::dns::protected::{Service, service};

/// A request that is understood.
pub(super) struct Asked {
    pub(super) route: Route,
    pub(super) what: What,
}

/// What it asks for, besides what its route says.
pub(super) enum What {
    /// Nothing.
    Nothing,
    /// A new job.
    Job(Job),
    /// A table as it is to be.
    Table(TableRef, Map<String, Value>),
    /// Rows for a table, as they came: their values are the table's business, and are not written anew.
    Rows(Bytes),
    /// A load with what it loads, or whose data is to come; and its place in memory, where it needs one.
    Load(Job, Option<Bytes>, Option<WholePlace>),
    /// A part of such data.
    Part(Part),
}

impl Asked {
    /// The SQL text, where it has one.
    pub(super) fn sql(&self) -> Option<&str> {
        match &self.what {
            What::Job(job) => job.sql(),
            What::Nothing | What::Table(..) | What::Rows(..) | What::Load(..) | What::Part(_) => {
                None
            }
        }
    }

    /// What it reaches for, where no dry run must say so, and the project that it names.
    pub(super) fn touch(&self) -> (Touch, Option<String>) {
        let project = |table: &TableRef| Some(table.dataset().project().to_owned());
        match (&self.what, &self.route.target) {
            (What::Table(table, _), _) => (Touch::Change(table.clone()), project(table)),
            (What::Rows(rows), Target::Rows(table)) => {
                let (table, bytes) = (table.clone(), rows.len() as u64);
                (Touch::Fill { table, bytes }, None)
            }
            (
                What::Nothing | What::Job(_) | What::Rows(..) | What::Load(..) | What::Part(_),
                target,
            ) => reached(self.route.method, target),
        }
    }

    /// What it holds in memory has this place.
    pub(super) fn at(mut self, place: Option<WholePlace>) -> Self {
        if let What::Load(_, _, own) = &mut self.what {
            *own = place;
        }
        self
    }

    /// The body as it is sent on: written anew from what was read, but for rows, which have one reading by every parser.
    pub(super) fn body(&self) -> Option<Bytes> {
        match &self.what {
            What::Table(_, body) => serde_json::to_vec(body).ok().map(Bytes::from),
            What::Rows(rows) => Some(rows.clone()),
            What::Nothing | What::Job(_) | What::Load(..) | What::Part(_) => None,
        }
    }
}

/// What a request without a body reaches for, and the project it names.
fn reached(method: Method, target: &Target) -> (Touch, Option<String>) {
    match target {
        Target::Discovery | Target::Upload(_) => (Touch::Nothing, None),
        Target::Projects => (Touch::FilteredList, None),
        Target::Datasets { project } | Target::NewJob { project } => {
            (Touch::FilteredList, Some(project.clone()))
        }
        Target::Jobs { project } => (Touch::OwnJobs, Some(project.clone())),
        Target::Dataset(dataset) | Target::Tables(dataset) | Target::Within(dataset) => (
            Touch::Dataset(dataset.clone()),
            Some(dataset.project().to_owned()),
        ),
        Target::Table(table) if method == Method::TablesDelete => (
            Touch::Change(table.clone()),
            Some(table.dataset().project().to_owned()),
        ),
        Target::Table(table) => (
            Touch::Table(table.clone()),
            Some(table.dataset().project().to_owned()),
        ),
        Target::Rows(table) => (
            Touch::Rows(table.clone()),
            Some(table.dataset().project().to_owned()),
        ),
        Target::Job(job) => (Touch::Job(job.clone()), Some(job.project.clone())),
    }
}

/// Understands where a request goes.
///
/// # Errors
/// A [`Refusal`] naming what is not let through, or can be read in more than one way.
pub(super) fn routed(session: &Session, head: &http::request::Parts) -> Result<Route, Refusal> {
    check_host(session, head)?;
    check_service(session)?;
    if head.headers.contains_key("x-http-method-override") {
        return Err(Refusal::new(
            Code::RequestMalformed,
            "A method override is not let through",
        ));
    }
    let route = route(head.method.as_str(), head.uri.path(), head.uri.query())?;
    conditions::check(route.method, route.verb, &head.headers)?;
    Ok(route)
}

/// The most of a body that is read before anything of it is passed on.
pub(super) const fn body_bytes_max(route: &Route) -> usize {
    if matches!(route.method, Method::JobsUpload) {
        upload::WHOLE_BYTES_MAX
    } else {
        json::BODY_BYTES_MAX
    }
}

/// Understands a request whose body has been read.
///
/// # Errors
/// A [`Refusal`] naming what is not let through, or can be read in more than one way.
pub(super) fn understand(
    route: Route,
    headers: &HeaderMap,
    body: &Bytes,
) -> Result<Asked, Refusal> {
    let what = what(&route, headers, body)?;
    let named = match &what {
        What::Job(job) | What::Load(job, ..) => job.named_project(),
        What::Nothing | What::Table(..) | What::Rows(..) | What::Part(_) => None,
    };
    if let (Some(named), Target::NewJob { project }) = (named, &route.target) {
        // A job reference that names another project than the path could be billed elsewhere.
        if named != project {
            return Err(Refusal::new(
                Code::RequestMalformed,
                "The job reference and the path name different projects",
            ));
        }
    }
    Ok(Asked { route, what })
}

/// A load, with its data or before it.
fn load(route: &Route, headers: &HeaderMap, body: &Bytes) -> Result<What, Refusal> {
    let (body, data) = if route.is_resumable() {
        (body.clone(), None)
    } else {
        let kind = headers.get(header::CONTENT_TYPE);
        let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        let upload::Whole { job, data } = upload::whole(kind, body)?;
        (job, Some(data))
    };
    match Job::from_insert(json::object(&body)?)? {
        Job::Transfer(job) if matches!(job.moves(), Moves::Sent { .. }) => {
            Ok(What::Load(Job::Transfer(job), data, None))
        }
        Job::Transfer(_) | Job::Query(_) => Err(upload::malformed(
            "its job is no load of what is sent along",
        )),
    }
}

fn what(route: &Route, headers: &HeaderMap, body: &Bytes) -> Result<What, Refusal> {
    Ok(match route.method {
        Method::JobsUpload => load(route, headers, body)?,
        Method::JobsInsert => What::Job(Job::from_insert(json::object(body)?)?),
        Method::JobsQuery => What::Job(Job::Query(QueryJob::from_query(json::object(body)?)?)),
        Method::TablesInsert | Method::TablesPatch | Method::TablesUpdate => {
            let body = job::without_nothings(json::object(body)?);
            What::Table(table(&route.target, job::table(&body)?)?, body)
        }
        Method::InsertAll => {
            job::rows(&json::object_with_any_numbers(body)?)?;
            What::Rows(body.clone())
        }
        Method::Discovery
        | Method::ProjectsList
        | Method::DatasetsList
        | Method::DatasetsGet
        | Method::TablesList
        | Method::TablesGet
        | Method::TablesDelete
        | Method::TabledataList
        | Method::ModelsList
        | Method::ModelsGet
        | Method::RoutinesList
        | Method::RoutinesGet
        | Method::JobsList
        | Method::JobsGet
        | Method::GetQueryResults
        | Method::JobsCancel
        | Method::JobsDelete
        | Method::StorageCreateReadSession
        | Method::StorageReadRows
        | Method::StorageSplitReadStream
        | Method::UploadPart => What::Nothing,
    })
}

/// The table that is made or changed: path and body must not name different ones.
fn table(target: &Target, named: Option<TableRef>) -> Result<TableRef, Refusal> {
    let agreed = match (target, named) {
        (Target::Table(table), None) => Some(table.clone()),
        (Target::Table(table), Some(named)) => (named == *table).then_some(named),
        (Target::Tables(dataset), Some(named)) => (named.dataset() == dataset).then_some(named),
        (
            Target::Tables(_)
            | Target::Discovery
            | Target::Projects
            | Target::Datasets { .. }
            | Target::Dataset(_)
            | Target::Rows(_)
            | Target::Within(_)
            | Target::Jobs { .. }
            | Target::NewJob { .. }
            | Target::Job(_)
            | Target::Upload(_),
            _,
        ) => None,
    };
    agreed.ok_or_else(|| {
        Refusal::new(
            Code::RequestMalformed,
            "The body's `tableReference` and the path do not name one table",
        )
    })
}

/// The host of the request must be the name that TLS agreed on: Google's front ends choose by the former.
pub(super) fn check_host(session: &Session, head: &http::request::Parts) -> Result<(), Refusal> {
    let hosts: Vec<&[u8]> = head
        .headers
        .get_all(header::HOST)
        .iter()
        .map(HeaderValue::as_bytes)
        .collect();
    let authority = head
        .uri
        .authority()
        .map(|authority| authority.as_str().as_bytes());
    let is_name = |host: &[u8]| {
        let host = host.to_ascii_lowercase();
        let host = host.strip_suffix(b":443").unwrap_or(&host);
        host.strip_suffix(b".").unwrap_or(host) == session.name.as_bytes()
    };
    let named = hosts.iter().copied().chain(authority);
    let (count, all) = named.fold((0, true), |(count, all), host| {
        (count + 1, all && is_name(host))
    });
    if count > 0 && hosts.len() <= 1 && all {
        Ok(())
    } else {
        Err(Refusal::new(
            Code::HostMismatch,
            format!(
                "The request is not for {}, the name the connection was made for",
                session.name
            ),
        ))
    }
}

/// Only BigQuery's own API is judged here, and so only it is let through.
fn check_service(session: &Session) -> Result<(), Refusal> {
    let why = match service(&session.name) {
        Service::Api => return Ok(()),
        Service::Storage => methods::STORAGE,
        Service::Neighbour => methods::NEIGHBOUR,
    };
    let what = format!(
        "Access Denied: BigQuery: nothing at {} is let through: {why}",
        session.name
    );
    Err(Refusal::new(Code::MethodUnknown, what))
}
