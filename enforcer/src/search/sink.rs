//! Where what is found goes: straight on, or, where only the newest are wanted, kept until the end.

use std::collections::VecDeque;

use enforcer_proto::audit::Record;

use super::SearchError;

/// Takes a record and its line.
pub type Each<'a> = dyn FnMut(&Record, &str) -> anyhow::Result<()> + 'a;

/// Passes on all records, or the newest `limit` of them.
pub struct Sink<'a, 'b> {
    limit: Option<usize>,
    kept: VecDeque<(Record, String)>,
    each: &'a mut Each<'b>,
}

impl std::fmt::Debug for Sink<'_, '_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sink").finish_non_exhaustive()
    }
}

impl<'a, 'b> Sink<'a, 'b> {
    /// Passes on to `each`.
    pub fn new(limit: Option<usize>, each: &'a mut Each<'b>) -> Self {
        Self {
            limit,
            kept: VecDeque::new(),
            each,
        }
    }

    /// Takes the next record, in the order of the log.
    ///
    /// # Errors
    /// What the taker fails with.
    pub fn take(&mut self, record: Record, line: &str) -> Result<(), SearchError> {
        let Some(limit) = self.limit else {
            return (self.each)(&record, line).map_err(SearchError::Taker);
        };
        self.kept.push_back((record, line.to_owned()));
        if self.kept.len() > limit {
            self.kept.pop_front();
        }
        Ok(())
    }

    /// Passes on what was kept.
    ///
    /// # Errors
    /// What the taker fails with.
    pub fn end(&mut self) -> Result<(), SearchError> {
        for (record, line) in self.kept.drain(..) {
            (self.each)(&record, &line).map_err(SearchError::Taker)?;
        }
        Ok(())
    }
}
