//! A search that reads the log through, from its oldest segment on.

use std::path::Path;

use enforcer_proto::audit::Record;
use enforcer_proto::search::{Filter, Search};

use super::{Needles, SearchError, Sink, io_error};
use crate::audit::{Lines, segments};

pub(super) fn scan(dir: &Path, filter: Filter, sink: &mut Sink<'_, '_>) -> Result<(), SearchError> {
    let needles = Needles::of(&filter);
    let mut search = Search::new(filter);
    let found = segments(dir).map_err(io_error("list", dir))?;
    if found.is_empty() {
        return Err(SearchError::Missing(dir.to_owned()));
    }
    for path in found {
        let mut lines = Lines::open(&path).map_err(io_error("read", &path))?;
        let mut offset = 0;
        while let Some(line) = lines.next_line().map_err(io_error("read", &path))? {
            let begins = offset;
            offset += line.len() as u64 + 1;
            if !needles.may_be_in(line) {
                continue;
            }
            let bad = |why: String| SearchError::Bad {
                file: path.clone(),
                offset: begins,
                why,
            };
            let text = str::from_utf8(line).map_err(|error| bad(error.to_string()))?;
            let record: Record =
                serde_json::from_str(text).map_err(|error| bad(error.to_string()))?;
            if search.wants(&record) {
                sink.take(record, text)?;
            }
        }
    }
    sink.end()
}
