//! One question to one runtime: a connection of its own, one request, an answer within bounds. Whoever calls bounds the time.

use std::collections::BTreeMap;
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

use super::trust::Untrusted;
use super::{ANSWER_BYTES_MAX, CONTAINERS_MAX, Container, ID_CHARS, Unheard, trust};

/// What is asked for: the containers whose processes there are, those that are paused among them. `{"status":["running","paused"]}`, escaped.
const LIST: &str =
    "/containers/json?filters=%7B%22status%22%3A%5B%22running%22%2C%22paused%22%5D%7D";
/// What a container's state is while it has processes, as the API spells it.
const STATES: [&str; 2] = ["running", "paused"];

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

/// Asks which containers run.
pub(super) async fn containers(socket: &Path) -> Result<Vec<Container>, Unheard> {
    trust::check(socket).map_err(|error| of_io(&error))??;
    let stream = UnixStream::connect(socket).await;
    let stream = stream.map_err(|error| of_io(&error))?;
    // What the path leads to may have changed since it was looked at: who listens is told by the kernel.
    let listener = stream.peer_cred().map_err(|error| of_io(&error))?.uid();
    if listener != 0 {
        return Err(Untrusted::Listener(listener).into());
    }
    read(&exchange(stream).await?)
}

async fn exchange(stream: UnixStream) -> Result<Bytes, Unheard> {
    let failed = |error: hyper::Error| Unheard::Failed(error.to_string());
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(failed)?;
    // Ends with this function, however that ends.
    let mut tasks = JoinSet::new();
    tasks.spawn(connection);
    let request = Request::get(LIST)
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
