//! What a message of the storage API asks for.

use bytes::Bytes;
use enforcer_proto::query::Method;
use enforcer_proto::refusal::{Code, Refusal};
use enforcer_proto::scope::{DatasetRef, TableRef};
use prost::Message;

use super::frame::malformed;
use super::messages::{
    self, ArrowOptions, CreateReadSessionRequest, ReadRowsRequest, Serialization,
    SplitReadStreamRequest,
};
use super::restriction;

/// `DataFormat`: Avro and Arrow.
const FORMATS: [i32; 2] = [1, 2];
/// The longest name of a stream, bytes.
pub const STREAM_BYTES_MAX: usize = 1024;
/// The longest name that a client gives a session, bytes.
const TRACE_BYTES_MAX: usize = 256;

/// A message, understood.
#[derive(Debug, Clone, PartialEq)]
pub struct Wanted {
    /// What it is about.
    pub about: About,
    /// It, written anew.
    pub message: Bytes,
}

/// What a message is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum About {
    /// A session that is to be made.
    Session {
        /// Who is billed.
        project: String,
        /// The table.
        table: TableRef,
        /// The condition on its rows, where there is one.
        condition: Option<String>,
    },
    /// A stream that was made, by its name.
    Stream(String),
}

impl Wanted {
    /// What the header beside the message says of it: a field, and its value.
    #[must_use]
    pub fn routing(&self, method: Method) -> (&'static str, String) {
        match &self.about {
            About::Session { table, .. } => ("read_session.table", path(table)),
            About::Stream(name) if method == Method::StorageSplitReadStream => {
                ("name", name.clone())
            }
            About::Stream(name) => ("read_stream", name.clone()),
        }
    }
}

/// Understands `CreateReadSession`'s message.
///
/// # Errors
/// A [`Refusal`] naming what is not let through.
pub fn session(message: Bytes) -> Result<Wanted, Refusal> {
    let mut asked: CreateReadSessionRequest = messages::read(message)?;
    let project = asked.parent.strip_prefix("projects/").unwrap_or_default();
    let project = project.to_owned();
    // The project of a dataset's name is held to what a project's name may be.
    if DatasetRef::new(&project, "x").is_err() {
        return Err(malformed("names no project as its parent"));
    }
    let wanted = asked.read_session.as_mut();
    let wanted = wanted.ok_or_else(|| malformed("names no session"))?;
    let table = table(&wanted.table)?;
    wanted.table = path(&table);
    if !FORMATS.contains(&wanted.data_format) {
        return Err(malformed("asks for rows neither as Avro nor as Arrow"));
    }
    if wanted.trace_id.len() > TRACE_BYTES_MAX {
        return Err(malformed("has a trace id that is too long"));
    }
    if let Some(options) = wanted.read_options.as_mut() {
        options.response_compression_codec = None;
        if let Some(Serialization::Arrow(arrow)) = options.serialization.as_mut() {
            uncompressed(arrow);
        }
    }
    let options = wanted.read_options.as_ref();
    let condition = options.map(|options| options.row_restriction.clone());
    let condition = condition.filter(|condition| !condition.is_empty());
    if let Some(condition) = &condition {
        restriction::judge(condition)?;
    }
    Ok(Wanted {
        about: About::Session {
            project,
            table,
            condition,
        },
        message: Bytes::from(asked.encode_to_vec()),
    })
}

/// Understands `ReadRows`'s message.
///
/// # Errors
/// [`Code::RequestMalformed`].
pub fn rows(message: Bytes) -> Result<Wanted, Refusal> {
    let mut asked: ReadRowsRequest = messages::read(message)?;
    if let Some(arrow) = asked.arrow_serialization_options.as_mut() {
        uncompressed(arrow);
    }
    Ok(Wanted {
        about: stream(&asked.read_stream)?,
        message: Bytes::from(asked.encode_to_vec()),
    })
}

/// Rows are asked for uncompressed, whatever the client wants: a budget counts the bytes that are passed on, and a batch says of itself how it is
/// written.
const fn uncompressed(arrow: &mut ArrowOptions) {
    arrow.buffer_compression = 0;
}

/// Understands `SplitReadStream`'s message.
///
/// # Errors
/// [`Code::RequestMalformed`].
pub fn split(message: Bytes) -> Result<Wanted, Refusal> {
    let asked: SplitReadStreamRequest = messages::read(message)?;
    Ok(Wanted {
        about: stream(&asked.name)?,
        message: Bytes::from(asked.encode_to_vec()),
    })
}

fn stream(name: &str) -> Result<About, Refusal> {
    if name.is_empty() || name.len() > STREAM_BYTES_MAX {
        return Err(malformed("names no stream"));
    }
    Ok(About::Stream(name.to_owned()))
}

/// `projects/…/datasets/…/tables/…`
fn table(path: &str) -> Result<TableRef, Refusal> {
    let parts: Vec<&str> = path.split('/').collect();
    let ["projects", project, "datasets", dataset, "tables", table] = parts.as_slice() else {
        return Err(malformed(
            "names no table as projects/…/datasets/…/tables/…",
        ));
    };
    let dataset = DatasetRef::new(project, dataset);
    let table = dataset.and_then(|dataset| TableRef::new(dataset, table));
    table.map_err(|error| Refusal::new(Code::RequestMalformed, error.to_string()))
}

fn path(table: &TableRef) -> String {
    let dataset = table.dataset();
    format!(
        "projects/{}/datasets/{}/tables/{}",
        dataset.project(),
        dataset.dataset(),
        table.table()
    )
}

#[cfg(test)]
mod tests {
    use super::super::messages::{TableReadOptions, WantedSession};
    use super::*;

    fn asked(parent: &str, table: &str, condition: &str) -> Result<About, Code> {
        let read_options = TableReadOptions {
            row_restriction: condition.to_owned(),
            ..TableReadOptions::default()
        };
        let wanted = WantedSession {
            data_format: 2,
            table: table.to_owned(),
            read_options: Some(read_options),
            ..WantedSession::default()
        };
        let request = CreateReadSessionRequest {
            parent: parent.to_owned(),
            read_session: Some(wanted),
            ..CreateReadSessionRequest::default()
        };
        let message = Bytes::from(request.encode_to_vec());
        let understood = session(message.clone()).map_err(|refusal| refusal.code)?;
        assert_eq!(understood.message, message, "it is sent as it was read");
        Ok(understood.about)
    }

    #[test]
    fn a_session_names_its_payer_its_table_and_its_condition() {
        let about = asked("projects/p-1", "projects/p-2/datasets/d/tables/t", "a = 1");
        let table = "p-2.d.t".parse().expect("a table");
        let session = About::Session {
            project: "p-1".to_owned(),
            table,
            condition: Some("a = 1".to_owned()),
        };
        assert_eq!(about, Ok(session));
    }

    #[test]
    fn what_names_no_table_or_payer_is_refused() {
        let good = "projects/p/datasets/d/tables/t";
        for (parent, table) in [
            ("", good),
            ("p", good),
            ("projects/", good),
            ("projects/p/locations/us", good),
            ("projects/p", ""),
            ("projects/p", "p.d.t"),
            ("projects/p", "projects/p/datasets/d/tables/"),
            ("projects/p", "projects/p/datasets/d/tables/t/x"),
            ("projects/p", "/projects/p/datasets/d/tables/t"),
            ("projects/p", "projects/p/datasets/../tables/t"),
            ("projects/p", "projects/p/datasets/d/tables/%74"),
        ] {
            let refused = asked(parent, table, "");
            assert_eq!(refused, Err(Code::RequestMalformed), "{parent} {table}");
        }
        let reaching = asked("projects/p", good, "a IN (SELECT 1)");
        assert_eq!(reaching, Err(Code::NotVouched));
    }

    #[test]
    fn rows_are_asked_for_uncompressed_whatever_the_client_wants() {
        let arrow = |buffer_compression| ArrowOptions {
            buffer_compression,
            picos_timestamp_precision: 1,
        };
        let request = |codec: Option<i32>, compression| CreateReadSessionRequest {
            parent: "projects/p".to_owned(),
            read_session: Some(WantedSession {
                data_format: 2,
                table: "projects/p/datasets/d/tables/t".to_owned(),
                read_options: Some(TableReadOptions {
                    serialization: Some(Serialization::Arrow(arrow(compression))),
                    response_compression_codec: codec,
                    ..TableReadOptions::default()
                }),
                ..WantedSession::default()
            }),
            ..CreateReadSessionRequest::default()
        };
        let sent = session(Bytes::from(request(Some(2), 2).encode_to_vec())).expect("a session");
        assert_eq!(sent.message, request(None, 0).encode_to_vec());
        let request = |compression| ReadRowsRequest {
            read_stream: "s".to_owned(),
            offset: 0,
            arrow_serialization_options: Some(arrow(compression)),
        };
        let sent = rows(Bytes::from(request(1).encode_to_vec())).expect("a stream");
        assert_eq!(sent.message, request(0).encode_to_vec());
    }

    #[test]
    fn a_session_of_nothing_and_a_stream_without_a_name_are_refused() {
        assert!(session(Bytes::new()).is_err());
        assert!(rows(Bytes::new()).is_err());
        assert!(split(Bytes::new()).is_err());
    }
}
