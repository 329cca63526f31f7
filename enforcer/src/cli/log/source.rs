//! Where the records come from: the daemon, or a log's folder without one. What asks for them need not know which.

use std::path::{Path, PathBuf};

use enforcer_proto::audit::Record;
use enforcer_proto::search::Filter;
use enforcer_proto::wire::{Ask, Reply};

use super::args::PlaceArgs;
use crate::cli::Failure;
use crate::cli::ask::{connect, runtime};
use crate::search::{self, Each, INDEX_NAME, Index, SearchError};

/// A log to be read.
#[derive(Debug)]
pub(super) enum Source {
    /// That of the daemon at this socket.
    Daemon(PathBuf),
    /// That in this folder, looked up in this index.
    Folder { dir: PathBuf, index: PathBuf },
}

impl Source {
    pub(super) fn of(socket: &Path, place: &PlaceArgs) -> Self {
        match &place.dir {
            None => Self::Daemon(socket.to_owned()),
            Some(dir) => Self::Folder {
                dir: dir.clone(),
                index: place.index.clone().unwrap_or_else(|| dir.join(INDEX_NAME)),
            },
        }
    }

    /// Hands each record that `filter` wants to `each`, with its line, oldest first; with `limit`, only the newest so many.
    pub(super) fn each(
        &self,
        filter: Filter,
        limit: Option<usize>,
        each: &mut Each<'_>,
    ) -> Result<(), Failure> {
        match self {
            Self::Daemon(socket) => {
                let mut each = |line: &str| {
                    let record = readable(line);
                    record.map_or(Ok(()), |record| Ok(each(&record, line)?))
                };
                runtime()?.block_on(lines(socket, false, limit, filter, &mut each))
            }
            Self::Folder { dir, .. } if filter == Filter::default() && limit.is_none() => {
                Ok(search::scan(dir, filter, None, each)?)
            }
            Self::Folder { dir, index } => match open(dir, index) {
                Ok(index) => Ok(index.search(filter, limit, each)?),
                Err(error) if error.is_for_want_of_rights() => {
                    eprintln!(
                        "enforcer: the index {} cannot be written, so the whole log is read: name another file with --index",
                        index.display()
                    );
                    Ok(search::scan(dir, filter, limit, each)?)
                }
                Err(error) => Err(error.into()),
            },
        }
    }

    /// All the records that `filter` wants, of which there are few.
    pub(super) fn few(&self, filter: Filter, limit: usize) -> Result<Vec<Record>, Failure> {
        let mut found = Vec::new();
        self.each(filter, Some(limit), &mut |record, _| {
            found.push(record.clone());
            Ok(())
        })?;
        Ok(found)
    }
}

fn open(dir: &Path, file: &Path) -> Result<Index, SearchError> {
    let mut index = Index::open(dir, file)?;
    index.update(false)?;
    Ok(index)
}

/// A record from the daemon; one that cannot be read is said and left out.
fn readable(line: &str) -> Option<Record> {
    let record = serde_json::from_str(line).ok();
    if record.is_none() {
        eprintln!("enforcer: a record cannot be read; check with: enforcer log verify");
    }
    record
}

/// Hands the daemon's lines, of what is there the newest `limit`, on to `each`, without end where they are followed.
pub(super) async fn lines(
    socket: &Path,
    follow: bool,
    limit: Option<usize>,
    filter: Filter,
    each: &mut dyn FnMut(&str) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut client = connect(socket).await?;
    let unreachable = |error| Failure::Unreachable(socket.to_owned(), error);
    let ask = Ask::Log {
        from: 1,
        follow,
        limit: limit.map(|limit| u32::try_from(limit).unwrap_or(u32::MAX)),
        filter: Box::new(filter),
    };
    let mut reply = client.ask(&ask).await.map_err(unreachable)?;
    loop {
        match reply {
            Reply::Records(lines) if lines.is_empty() => return Ok(()),
            Reply::Records(lines) => lines.iter().try_for_each(|line| each(line))?,
            Reply::Refused(refusal) => return Err(Failure::Refused(refusal)),
            Reply::Requested { .. }
            | Reply::Opened(_)
            | Reply::Counted(_)
            | Reply::Done
            | Reply::Status(_)
            | Reply::Joined(_)
            | Reply::Notified(_)
            | Reply::Checked(_)
            | Reply::GivenBack(_) => {
                return Err(Failure::Other(anyhow::anyhow!(
                    "the daemon answered something else than the log"
                )));
            }
        }
        reply = client.next().await.map_err(unreachable)?;
    }
}
