//! Records as rows of a table.

use std::borrow::Cow;
use std::io::Write;

use enforcer_proto::audit::Record;
use enforcer_proto::event::About;
use enforcer_proto::principal::ContainerOrigin;
use enforcer_proto::sentence::sentence;

use enforcer_proto::text::utc;

/// The columns.
const HEAD: [&str; 18] = [
    "seq",
    "time",
    "kind",
    "agent",
    "request",
    "window",
    "query",
    "connection",
    "code",
    "pid",
    "uid",
    "process",
    "container",
    "datasets",
    "tables",
    "sql",
    "sentence",
    "hash",
];

/// A table being written.
#[derive(Debug)]
pub(super) struct Table<W: Write>(csv::Writer<W>);

impl<W: Write> Table<W> {
    pub(super) fn begin(out: W) -> anyhow::Result<Self> {
        let mut writer = csv::WriterBuilder::new()
            .terminator(csv::Terminator::CRLF)
            .from_writer(out);
        writer.write_record(HEAD)?;
        Ok(Self(writer))
    }

    pub(super) fn row(&mut self, record: &Record) -> anyhow::Result<()> {
        let about = About::of(&record.event);
        let process = about.process;
        let cells: [String; HEAD.len()] = [
            record.seq.to_string(),
            utc(record.unix_ns),
            record.event.kind().to_owned(),
            said(about.agent),
            said(about.request),
            said(about.grant),
            said(about.query),
            said(about.session),
            said(about.code),
            said(process.map(|process| process.pid)),
            said(process.map(|process| process.uid)),
            said(process.map(|process| &process.comm)),
            said(about.container.map(ContainerOrigin::shown)),
            joined(&about.datasets),
            joined(&about.tables),
            said(about.sql),
            sentence(&record.event),
            said(record.hash.as_ref()),
        ];
        Ok(self
            .0
            .write_record(cells.iter().map(|cell| safe(cell).into_owned()))?)
    }

    pub(super) fn end(mut self) -> anyhow::Result<()> {
        Ok(self.0.flush()?)
    }
}

fn said(value: Option<impl ToString>) -> String {
    value.map_or_else(String::new, |value| value.to_string())
}

fn joined<T: ToString>(items: &[T]) -> String {
    let items: Vec<String> = items.iter().map(ToString::to_string).collect();
    items.join(" ")
}

/// A cell that no spreadsheet takes for a formula: agents chose some of this text.
fn safe(cell: &str) -> Cow<'_, str> {
    if cell.starts_with(['=', '+', '-', '@', '\t', '\r', '\n', '＝', '＋', '－', '＠']) {
        Cow::Owned(format!("'{cell}"))
    } else {
        Cow::Borrowed(cell)
    }
}

#[cfg(test)]
mod tests {
    use enforcer_proto::event::Event;
    use enforcer_proto::id::SessionId;
    use enforcer_proto::principal::Process;
    use enforcer_proto::refusal::{Code, Refusal};

    use super::*;

    fn refused(sql: &str, comm: &str) -> Record {
        Record {
            seq: 1,
            boot_id: "b".into(),
            boot_ns: 1,
            unix_ns: 1,
            event: Event::QueryRefused {
                grant: None,
                agent: "bot".parse().expect("a name"),
                session: SessionId(1),
                process: Process {
                    pid: 1,
                    start_boot_ns: 1,
                    uid: 1,
                    comm: comm.into(),
                },
                container: None,
                request: "POST /queries".into(),
                sql: Some(sql.into()),
                sql_cut: None,
                refusal: Refusal::new(Code::WindowNone, "agent bot has no open window"),
            },
            prev: String::new(),
            hash: None,
        }
    }

    fn rows(records: &[Record]) -> Vec<Vec<String>> {
        let mut out = Vec::new();
        let mut table = Table::begin(&mut out).expect("writes");
        for record in records {
            table.row(record).expect("writes");
        }
        table.end().expect("writes");
        assert_eq!(
            out.iter().filter(|byte| **byte == b'\r').count(),
            out.windows(2).filter(|two| *two == b"\r\n").count()
        );
        let mut reader = csv::ReaderBuilder::new()
            .has_headers(false)
            .from_reader(&out[..]);
        let row = |row: Result<csv::StringRecord, csv::Error>| {
            row.expect("RFC 4180").iter().map(str::to_owned).collect()
        };
        reader.records().map(row).collect()
    }

    #[test]
    fn what_an_agent_wrote_stays_in_its_cell_and_is_no_formula() {
        let sql = "=HYPERLINK(\"http://x\",\"y\")\nSELECT 1, 2";
        let rows = rows(&[refused(sql, "@SUM(1)"), refused("-1+1", "\tpy")]);
        assert_eq!(rows[0], HEAD);
        assert_eq!(rows[1][15], format!("'{sql}"));
        assert_eq!(rows[1][11], "'@SUM(1)");
        assert_eq!(
            (rows[2][15].as_str(), rows[2][11].as_str()),
            ("'-1+1", "'\tpy")
        );
        assert_eq!(rows[1][8], "window.none");
    }
}
