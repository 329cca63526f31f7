//! What an agent is told of a name. Pure. BigQuery's names have one address that nobody has, so that what the agent then connects to says for
//! itself that BigQuery is meant, whatever else Google serves at the real ones. So has every name that leads to one of them.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use enforcer_proto::principal::AgentName;
use enforcer_proto::refusal::{Code, Refusal};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};

use super::protected::VIP_NAMES;
use crate::config::WhichNames;
use crate::proxy::tls::ProtectedNames;

/// What agents are told for BigQuery's names: from the range that is set aside for documentation (RFC 5737), so that no packet to it can
/// reach anybody. Protected on every host, always.
pub const SYNTHETIC: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 80);
/// Where clients look for a metadata server, by address and by name.
pub(super) const METADATA: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);
/// How long a client may keep either, seconds.
pub(super) const OWN_TTL_S: u32 = 60;
/// The names of the metadata server, with and without the search domain that hosts of Google's have.
const METADATA_NAMES: [&str; 4] = [
    "metadata.google.internal",
    "metadata.goog",
    "metadata",
    "instance-data.google.internal",
];
/// The types that are looked up for agents. Others are answered as not implemented.
const LOOKED_UP: [RecordType; 11] = [
    RecordType::A,
    RecordType::AAAA,
    RecordType::CAA,
    RecordType::CNAME,
    RecordType::MX,
    RecordType::NAPTR,
    RecordType::NS,
    RecordType::PTR,
    RecordType::SOA,
    RecordType::SRV,
    RecordType::TXT,
];

/// They could name other places to reach a server at, or keys by which a client hides the name it wants.
const HIDING: [RecordType; 2] = [RecordType::HTTPS, RecordType::SVCB];

/// What the configuration says of one agent's questions.
#[derive(Debug, Clone)]
pub struct NamesRules {
    /// Which names are looked up for it.
    pub which: WhichNames,
    /// Those that it is allowed where not all are; normalised.
    pub allow: BTreeSet<String>,
}

impl NamesRules {
    /// The same where the agent asks from a network namespace that has no network which this host's root has given it, if it does.
    pub(super) fn within(&self, is_strict: bool) -> Cow<'_, Self> {
        match (self.which, is_strict) {
            (WhichNames::Forward, true) => Cow::Owned(Self {
                which: WhichNames::Strict,
                allow: self.allow.clone(),
            }),
            (WhichNames::Forward | WhichNames::Strict, _) => Cow::Borrowed(self),
        }
    }
}

/// What to answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Told {
    /// This one address.
    Address(Ipv4Addr),
    /// That the name has no such record.
    Nothing,
    /// What the resolvers say.
    LookUp,
    /// These records, which they said.
    Records(Vec<Record>),
    /// That the type is not served.
    NotServed,
    /// Nothing, and that goes on record.
    Refused(Refusal),
}

/// What anybody is told of a name, whoever asks: of BigQuery's and of the metadata server's. None for others.
pub(super) fn told_anybody(
    protected: &ProtectedNames,
    name: &str,
    kind: RecordType,
) -> Option<Told> {
    Some(of_own(own(protected, name)?, kind))
}

/// Decides on a question of `agent`'s for a name in lower case, without the trailing dot.
pub(super) fn told(
    agent: &AgentName,
    rules: Option<&NamesRules>,
    protected: &ProtectedNames,
    name: &str,
    kind: RecordType,
) -> Told {
    if let Some(told) = told_anybody(protected, name, kind) {
        return told;
    }
    let is_told = rules.is_some_and(|rules| match rules.which {
        WhichNames::Forward => true,
        WhichNames::Strict => rules.allow.contains(name),
    });
    if !is_told {
        let what = format!(
            "The name {name} was asked for, and agent {agent} is told only those on its list"
        );
        return Told::Refused(Refusal::new(Code::HostNotAllowed, what));
    }
    if HIDING.contains(&kind) {
        Told::Nothing
    } else if LOOKED_UP.contains(&kind) {
        Told::LookUp
    } else {
        Told::NotServed
    }
}

/// Decides on what the resolvers said: a name that leads to one of ours is answered as ours, whoever said so, and what was not asked for is
/// left out. That all of Google's names lead to one at which everything is served makes none of them BigQuery's: its addresses are protected
/// like the front ends'.
pub(super) fn answered(protected: &ProtectedNames, kind: RecordType, found: &[Record]) -> Told {
    let named = found.iter().flat_map(|record| {
        let leads = leads_to(&record.data);
        [Some(&record.name), leads].into_iter().flatten()
    });
    if let Some(address) = named
        .map(letters)
        .filter(|name| !VIP_NAMES.contains(&name.as_str()))
        .find_map(|name| own(protected, &name))
    {
        return of_own(address, kind);
    }
    let asked_for = |record: &&Record| [kind, RecordType::CNAME].contains(&record.record_type());
    Told::Records(found.iter().filter(asked_for).cloned().collect())
}

/// A name as everything here compares it: in lower case, without the trailing dot.
pub(super) fn letters(name: &Name) -> String {
    name.to_ascii().trim_end_matches('.').to_ascii_lowercase()
}

/// The address of a name that is answered from here.
fn own(protected: &ProtectedNames, name: &str) -> Option<Ipv4Addr> {
    if protected.is_bigquerys(name) {
        Some(SYNTHETIC)
    } else if METADATA_NAMES.contains(&name) {
        Some(METADATA)
    } else {
        None
    }
}

fn of_own(address: Ipv4Addr, kind: RecordType) -> Told {
    // Not one of each family: with two, the C library tries datagrams to both to choose between them, and those are refused.
    if kind == RecordType::A {
        Told::Address(address)
    } else {
        Told::Nothing
    }
}

/// The name by which a record leads to another place.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the library's enum, which is open: what else it knows is never passed on, or leads nowhere"
)]
const fn leads_to(data: &RData) -> Option<&Name> {
    match data {
        RData::CNAME(name) => Some(&name.0),
        RData::MX(mx) => Some(&mx.exchange),
        RData::NAPTR(naptr) => Some(&naptr.replacement),
        RData::NS(name) => Some(&name.0),
        RData::PTR(name) => Some(&name.0),
        RData::SRV(srv) => Some(&srv.target),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::str::FromStr;

    use hickory_resolver::proto::rr::rdata::{
        A, AAAA, CNAME, HTTPS, MX, NAPTR, NS, PTR, SRV, SVCB,
    };

    use super::*;

    fn ask(which: WhichNames, name: &str, kind: RecordType) -> Told {
        let rules = NamesRules {
            which,
            allow: ["storage.googleapis.com".to_owned()].into(),
        };
        let protected = [
            "bigquery.googleapis.com".to_owned(),
            "bq.psc.test".to_owned(),
        ];
        let protected = protected.into_iter().collect();
        told(
            &"bot".parse().unwrap(),
            Some(&rules),
            &protected,
            name,
            kind,
        )
    }

    #[test]
    fn bigquerys_names_have_one_address_that_nobody_has_and_nothing_else() {
        for which in [WhichNames::Forward, WhichNames::Strict] {
            for name in [
                "bigquery.googleapis.com",
                "bq.psc.test",
                // Not on the list, and BigQuery's by its letters.
                "bigquery.mars-north1.rep.googleapis.com",
            ] {
                assert_eq!(ask(which, name, RecordType::A), Told::Address(SYNTHETIC));
                for kind in [
                    RecordType::AAAA,
                    RecordType::HTTPS,
                    RecordType::SVCB,
                    RecordType::TXT,
                    RecordType::ANY,
                ] {
                    assert_eq!(ask(which, name, kind), Told::Nothing, "{name} {kind}");
                }
            }
        }
    }

    #[test]
    fn the_metadata_server_has_its_well_known_address() {
        for name in METADATA_NAMES {
            assert_eq!(
                ask(WhichNames::Strict, name, RecordType::A),
                Told::Address(METADATA)
            );
            assert_eq!(
                ask(WhichNames::Strict, name, RecordType::AAAA),
                Told::Nothing
            );
        }
    }

    #[test]
    fn other_names_are_looked_up_but_for_what_hides_or_moves_a_server() {
        let ask = |kind| ask(WhichNames::Forward, "example.com", kind);
        assert_eq!(ask(RecordType::A), Told::LookUp);
        assert_eq!(ask(RecordType::HTTPS), Told::Nothing);
        assert_eq!(ask(RecordType::ANY), Told::NotServed);
        assert_eq!(ask(RecordType::AXFR), Told::NotServed);
    }

    #[test]
    fn a_strict_agent_is_told_only_the_names_on_its_list() {
        let ask = |name| ask(WhichNames::Strict, name, RecordType::A);
        assert_eq!(ask("storage.googleapis.com"), Told::LookUp);
        for name in [
            "example.com",
            "c2VjcmV0.storage.googleapis.com",
            "googleapis.com",
            "",
        ] {
            assert!(matches!(ask(name), Told::Refused(_)), "{name}");
        }
    }

    #[test]
    fn an_agent_without_rules_is_told_nothing_more() {
        let none = told(
            &"bot".parse().unwrap(),
            None,
            &ProtectedNames::default(),
            "example.com",
            RecordType::A,
        );
        assert!(matches!(none, Told::Refused(_)));
    }

    fn name(text: &str) -> Name {
        Name::from_str(text).unwrap()
    }

    fn record(owner: &str, data: RData) -> Record {
        Record::from_rdata(name(owner), 30, data)
    }

    fn alias(owner: &str, of: &str) -> Record {
        record(owner, RData::CNAME(CNAME(name(of))))
    }

    fn address(owner: &str) -> Record {
        record(owner, RData::A(A::new(203, 0, 113, 9)))
    }

    fn heard(kind: RecordType, found: &[Record]) -> Told {
        let protected = ["bq.psc.test".to_owned()].into_iter().collect();
        answered(&protected, kind, found)
    }

    #[test]
    fn an_alias_of_a_name_of_ours_has_the_address_of_that_name_wherever_it_stands() {
        for (of, wanted) in [
            ("bigquery.googleapis.com.", SYNTHETIC),
            ("BigQuery.GoogleAPIs.com.", SYNTHETIC),
            ("bq.psc.test.", SYNTHETIC),
            ("bigquery.mars-north1.rep.googleapis.com.", SYNTHETIC),
            ("metadata.google.internal.", METADATA),
        ] {
            let onward = [
                alias("a.test.", of),
                alias(of, "b.1e100.test."),
                address("b.1e100.test."),
            ];
            let backward: Vec<Record> = onward.iter().rev().cloned().collect();
            let alone = [address(of)];
            for found in [&onward[..1], &onward, &backward, &alone] {
                assert_eq!(heard(RecordType::A, found), Told::Address(wanted), "{of}");
                assert_eq!(heard(RecordType::AAAA, found), Told::Nothing, "{of}");
                assert_eq!(heard(RecordType::CNAME, found), Told::Nothing, "{of}");
            }
        }
    }

    #[test]
    fn a_record_of_any_other_kind_that_leads_to_bigquery_is_not_told() {
        let bigquery = || name("bigquery.googleapis.com.");
        let empty = || Box::from([]);
        for data in [
            RData::MX(MX::new(1, bigquery())),
            RData::NAPTR(NAPTR::new(1, 1, empty(), empty(), empty(), bigquery())),
            RData::NS(NS(bigquery())),
            RData::PTR(PTR(bigquery())),
            RData::SRV(SRV::new(1, 1, 443, bigquery())),
        ] {
            let kind = data.record_type();
            let found = [record("example.com.", data)];
            assert_eq!(heard(kind, &found), Told::Nothing, "{kind}");
        }
    }

    #[test]
    fn other_answers_pass_but_for_what_was_not_asked_for() {
        let passed = [
            alias("example.com.", "www.example.com."),
            address("www.example.com."),
        ];
        let service = SVCB::new(1, name("elsewhere.test."), Vec::new());
        let more = [
            record("www.example.com.", RData::HTTPS(HTTPS(service))),
            record(
                "www.example.com.",
                RData::AAAA(AAAA::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 9)),
            ),
        ];
        let found = [passed.as_slice(), &more].concat();
        assert_eq!(heard(RecordType::A, &found), Told::Records(passed.to_vec()));
    }
}
