//! BigQuery's REST surface, purely: requests become facts, bodies are rewritten, answers are read. No socket, no clock, no token here.
//!
//! What is not understood is refused: paths, parameters and body fields are allow-lists. The fields are those of the discovery document
//! of `bigquery/v2`.

pub mod answer;
pub mod dry_run;
pub mod job;
pub mod json;
pub mod methods;
pub mod refuse;
pub mod relations;
pub mod route;
pub mod text;
