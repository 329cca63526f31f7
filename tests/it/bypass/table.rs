//! The table in SECURITY.md is what the suite shows, no more and no less.

use std::fmt::Write;
use std::path::Path;

use super::{Case, Shows, failing, full, http, identity, interfaces, kernel, names, ports};

const BEGIN: &str = "<!-- bypass: made from the suite -->\n";
const END: &str = "<!-- /bypass -->";

fn table() -> String {
    let modules = [
        ("kernel", kernel::CASES),
        ("identity", identity::CASES),
        ("names", names::CASES),
        ("ports", ports::CASES),
        ("interfaces", interfaces::CASES),
        ("full", full::CASES),
        ("http", http::CASES),
        ("failing", failing::CASES),
    ];
    let mut cases: Vec<(&str, &Case)> = modules
        .iter()
        .flat_map(|(module, cases)| cases.iter().map(|case| (*module, case)))
        .collect();
    cases.sort_by_key(|(_, case)| (case.number, case.test));
    let mut table = "| | tried | comes of it | shown by |\n|---|---|---|---|\n".to_owned();
    for (module, case) in cases {
        let comes = match case.shows {
            Shows::Refused => "refused, on record",
            Shows::RefusedToCapability => "refused, on record; takes a capability",
            Shows::NoEffect => "has no effect, on record",
            Shows::FailsClosed => "nothing gets out, and it is said",
            Shows::Noticed => "takes root; noticed, on record",
            Shows::Limit => "**not refused**: a limit",
            Shows::LimitWithoutHooks => "**not refused**: a limit; with BPF LSM refused, on record",
        };
        let (number, what, test) = (case.number, case.what.trim(), case.test);
        let _ = writeln!(
            table,
            "| {number} | {what} | {comes} | `bypass::{module}::{test}` |"
        );
    }
    table
}

#[test]
fn the_table_in_security_md_is_what_the_suite_shows() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../SECURITY.md");
    let text = std::fs::read_to_string(&path).expect("reads");
    let (before, rest) = text.split_once(BEGIN).expect("the table begins");
    let (there, after) = rest.split_once(END).expect("the table ends");
    let wanted = table();
    if std::env::var_os("WRITE_TABLES").is_some() {
        std::fs::write(&path, format!("{before}{BEGIN}{wanted}{END}{after}")).expect("writes");
        return;
    }
    assert_eq!(
        there, wanted,
        "run this test with WRITE_TABLES=1 to write it anew"
    );
}
