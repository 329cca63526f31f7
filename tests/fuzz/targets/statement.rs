//! The text of a query. It never breaks its reader, what it writes is among what it names, and it hides no table that stands beside it.
#![no_main]

use enforcer::bigquery::relations::{Reading, Relations};
use enforcer::bigquery::text;
use enforcer_proto::scope::Scope;
use libfuzzer_sys::fuzz_target;

/// Longer texts take a stack that this thread does not have.
const BYTES_MAX: usize = 4096;

fuzz_target!(|data: &[u8]| {
    let Ok(sql) = std::str::from_utf8(data) else {
        return;
    };
    if sql.len() > BYTES_MAX {
        return;
    }
    let scope: Scope = "p.finance:read,p.scratch:write".parse().expect("a scope");
    let Ok(named) = text::read(sql) else {
        return;
    };
    let reading = Reading::of(sql, named.tokens, &scope, "p", None);
    if let Some(target) = &reading.target {
        // What is written is among what is named.
        let is_covered = scope.covers(target.dataset());
        assert!(
            is_covered || matches!(reading.relations, Relations::Outside(_)),
            "{target}"
        );
    }
    // Whatever stands beside it, a table outside stays one.
    let beside = format!("SELECT * FROM `p.hr.salaries` WHERE x IN ({sql}\n)");
    let reading = Reading::of(&beside, named.tokens + 20, &scope, "p", None);
    let is_seen = matches!(
        reading.relations,
        Relations::Outside(_) | Relations::Unknown(_)
    );
    assert!(is_seen, "{beside}");
});
