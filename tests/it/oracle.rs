//! What the product reads in a text of SQL, against what GoogleSQL's own analyser reads in it, statement by statement of a battery; and the
//! battery through the real daemon.
//!
//! `tests/oracle/battery.toml` has the statements by class, each with what is to become of it. `tests/oracle/oracle.py` asks ZetaSQL. The
//! product reads a text only to refuse it early; that it reads nothing less than ZetaSQL does is what is shown here.

mod battery;
mod decided;
mod differential;
mod functions;
mod grown;
mod mistakes;
mod mutated;
mod product;
mod table;
mod zetasql;
