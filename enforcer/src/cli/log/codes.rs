//! The document of all refusals, made from what they say.

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;
    use std::path::Path;

    use enforcer_proto::refusal::Code;

    use enforcer_proto::why::verdict::{all, explained};

    fn document() -> String {
        let mut table = "# Every refusal\n\n\
            Made from `enforcer/proto/src/refusal.rs` and `enforcer/proto/src/why/verdict.rs`. A refusal has the same words in the client, in the \
            console and in the log: what was refused and why, the next step, and the code. Codes are only ever added. `enforcer why` says this of \
            a record, with the facts; `enforcer log --code CODE` finds the records.\n\n\
            | code | means | next step |\n|---|---|---|\n"
            .to_owned();
        for code in Code::ALL {
            let meaning = code.meaning().trim();
            let _ = writeln!(table, "| `{code}` | {meaning} | {} |", code.next_step());
        }
        table += "\n## What the kernel refuses\n\n\
            A client hears `EPERM`, or nothing where a packet was dropped: the kernel has no words to give it. The log has, in records of the kind \
            `kernel_refused`.\n\n\
            | in the log | means | next step |\n|---|---|---|\n";
        for reason in all() {
            let said = explained(reason);
            let _ = writeln!(
                table,
                "| {} | {} | {} |",
                reason.words(),
                said.meaning,
                said.next_step
            );
        }
        table
    }

    #[test]
    fn the_document_says_what_the_refusals_say() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("CODES.md");
        if std::env::var_os("WRITE_TABLES").is_some() {
            std::fs::write(&path, document()).expect("writes");
            return;
        }
        let there = std::fs::read_to_string(&path).unwrap_or_default();
        assert_eq!(
            there,
            document(),
            "run this test with WRITE_TABLES=1 to write it anew"
        );
    }

    #[test]
    fn no_cell_of_the_document_breaks_its_table() {
        for line in document().lines().filter(|line| line.starts_with('|')) {
            assert_eq!(line.matches('|').count(), 4, "{line}");
        }
    }
}
