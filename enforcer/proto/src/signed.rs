//! What an approver signs: the terms of one decision on one host, as text that a person can read. Nothing is signed or checked here.

use crate::id::RequestId;
use crate::scope::Scope;
use crate::time::Ttl;

/// The namespace of the signatures (`ssh-keygen -Y sign -n`): one that was made for something else is none.
pub const NAMESPACE: &str = "enforcer-approval";

/// The terms of a decision.
#[derive(Debug, Clone, Copy)]
pub struct Terms<'a> {
    /// The host's configured name.
    pub host: &'a str,
    /// The request.
    pub request: RequestId,
    /// The digest of what the approver was shown.
    pub digest: &'a str,
    /// What is granted.
    pub scope: &'a Scope,
    /// For how long.
    pub ttl: Ttl,
    /// Bytes that may be billed.
    pub bytes_max: u64,
    /// Queries that may be run.
    pub queries_max: u64,
    /// Why it is opened without the others, where it is.
    pub break_glass: Option<&'a str>,
}

/// The text that is signed. Each line is one field, and no field holds a line break: a reason is quoted.
#[must_use]
pub fn statement(terms: &Terms<'_>) -> String {
    let Terms {
        host,
        request,
        digest,
        scope,
        ttl,
        bytes_max,
        queries_max,
        break_glass,
    } = terms;
    let emergency =
        break_glass.map_or_else(String::new, |reason| format!("emergency {reason:?}\n"));
    format!(
        "enforcer approval, version 2\nhost {host:?}\nrequest {request}\ndigest {digest:?}\nscope {scope}\nttl {} s\nbytes {bytes_max}\nqueries {queries_max}\n{emergency}",
        ttl.seconds()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_terms_are_another_text_and_a_reason_makes_no_line_of_its_own() {
        let scope: Scope = "p.d:read".parse().expect("a scope");
        let terms = Terms {
            host: "host-a",
            request: RequestId(5),
            digest: "ab",
            scope: &scope,
            ttl: "15m".parse().expect("a ttl"),
            bytes_max: 1000,
            queries_max: 3,
            break_glass: None,
        };
        let text = statement(&terms);
        assert_eq!(
            text,
            "enforcer approval, version 2\nhost \"host-a\"\nrequest r-5\ndigest \"ab\"\nscope p.d:read\nttl 900 s\nbytes 1000\nqueries 3\n"
        );
        let broken = statement(&Terms {
            break_glass: Some("x\nttl 1 s"),
            ..terms
        });
        assert_eq!(broken.lines().count(), text.lines().count() + 1);
    }
}
