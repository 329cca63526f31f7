//! BigQuery's surface, purely: requests become facts, bodies are rewritten, answers are read. No socket, no clock, no token here.
//!
//! What is not understood is refused: paths, parameters and body fields are allow-lists. The fields are those of the discovery document
//! of `bigquery/v2`.

pub mod answer;
pub mod coding;
pub mod dry_run;
pub mod estimate;
mod functions;
pub mod job;
pub mod json;
pub mod methods;
pub mod needs;
pub mod page_token;
pub mod refuse;
pub mod relations;
pub mod resource;
mod respell;
pub mod route;
pub mod storage;
mod target;
pub mod text;
pub mod unread;
pub mod upload;
pub mod words;
