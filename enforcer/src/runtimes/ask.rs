//! Questions to one runtime: for each a connection of its own, one request, an answer within bounds. Whoever calls bounds the time.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;

use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Empty, LengthLimitError, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::net::UnixStream;
use tokio::task::JoinSet;

use super::question::{QUESTIONS_MAX, Question, STATES, Wanted};
use super::trust::Untrusted;
use super::{ANSWER_BYTES_MAX, CONTAINERS_MAX, Container, ID_CHARS, Unheard, trust};
use crate::config::Workload;

/// A container as the API lists it. What else it says is not read.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Listed {
    id: String,
    state: String,
    // Null where there is none.
    names: Option<Vec<String>>,
    image: Option<String>,
    labels: Option<BTreeMap<String, String>>,
}

/// Asks which containers run; where that is too long, which of those that are wanted. With of which of these it does not say it.
pub(super) async fn containers(
    socket: &Path,
    wanted: &Wanted,
) -> Result<(Vec<Container>, BTreeSet<Workload>), Unheard> {
    let mut questions = wanted.questions();
    match listed(socket, &Question::All).await {
        Err(Unheard::TooLong | Unheard::TooMany) if !questions.is_empty() => {}
        all => return Ok((all?, BTreeSet::new())),
    }
    let (mut found, mut unheard) = (BTreeMap::new(), BTreeSet::new());
    let mut asked = 0;
    while let Some(question) = questions.pop_front() {
        if asked == QUESTIONS_MAX {
            unheard.extend(question.workloads());
            continue;
        }
        asked += 1;
        match (listed(socket, &question).await, question.halves()) {
            (Ok(containers), _) => {
                let containers = containers.into_iter();
                found.extend(containers.map(|container| (container.id.clone(), container)));
            }
            // What one container makes too long is not the others' fault.
            (Err(Unheard::TooLong | Unheard::TooMany), Some(halves)) => questions.extend(halves),
            (Err(Unheard::TooLong | Unheard::TooMany), None) => {
                unheard.extend(question.workloads());
            }
            (Err(why), _) => return Err(why),
        }
    }
    Ok((found.into_values().collect(), unheard))
}

/// Asks one question.
async fn listed(socket: &Path, question: &Question) -> Result<Vec<Container>, Unheard> {
    trust::check(socket).map_err(|error| of_io(&error))??;
    let stream = UnixStream::connect(socket).await;
    let stream = stream.map_err(|error| of_io(&error))?;
    // What the path leads to may have changed since it was looked at: who listens is told by the kernel.
    let listener = stream.peer_cred().map_err(|error| of_io(&error))?.uid();
    if listener != 0 {
        return Err(Untrusted::Listener(listener).into());
    }
    read(&exchange(stream, question).await?)
}

async fn exchange(stream: UnixStream, question: &Question) -> Result<Bytes, Unheard> {
    let failed = |error: hyper::Error| Unheard::Failed(error.to_string());
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(failed)?;
    // Ends with this function, however that ends.
    let mut tasks = JoinSet::new();
    tasks.spawn(connection);
    let request = Request::get(question.path())
        .header(header::HOST, "runtime")
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|error| Unheard::Failed(error.to_string()))?;
    let response = sender.send_request(request).await.map_err(failed)?;
    if response.status() != StatusCode::OK {
        return Err(Unheard::Status(response.status().as_u16()));
    }
    let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX);
    let body = body.collect().await.map_err(|error| {
        if error.is::<LengthLimitError>() {
            Unheard::TooLong
        } else {
            Unheard::Failed(error.to_string())
        }
    })?;
    Ok(body.to_bytes())
}

/// Reads a list of containers: all of it, or nothing. One entry that is not what it should be says that the rest may not be either.
pub(super) fn read(body: &[u8]) -> Result<Vec<Container>, Unheard> {
    // Without the words that are wrong: they are the runtime's.
    let listed: Vec<Listed> = serde_json::from_slice(body).map_err(|error| Unheard::NoList {
        line: error.line(),
        column: error.column(),
    })?;
    if listed.len() > CONTAINERS_MAX {
        return Err(Unheard::TooMany);
    }
    let mut containers = Vec::new();
    for listed in listed {
        if !is_id(&listed.id) {
            return Err(Unheard::NoId);
        }
        if STATES.contains(&listed.state.as_str()) {
            containers.push(container(listed));
        }
    }
    Ok(containers)
}

fn container(listed: Listed) -> Container {
    let names = listed.names.into_iter().flatten();
    // Docker's links give a container further names, with another one's before them.
    let names = names.filter_map(|name| {
        let name = name.strip_prefix('/').unwrap_or(&name);
        (!name.is_empty() && !name.contains('/')).then(|| name.to_owned())
    });
    Container {
        names: names.collect(),
        labels: listed.labels.unwrap_or_default(),
        image: listed.image.filter(|image| !image.is_empty()),
        id: listed.id,
    }
}

fn is_id(text: &str) -> bool {
    let is_digit = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    text.len() == ID_CHARS && text.bytes().all(is_digit)
}

fn of_io(error: &io::Error) -> Unheard {
    let missing = [io::ErrorKind::NotFound, io::ErrorKind::ConnectionRefused];
    if missing.contains(&error.kind()) {
        Unheard::Missing
    } else {
        Unheard::Failed(error.to_string())
    }
}
