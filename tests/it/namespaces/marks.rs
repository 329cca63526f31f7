//! Marks on agents' questions for names, where whoever asks is root of the network namespace and can put any on them.

use harness::world::{Family, World};
use serde_json::Value;

use super::OTHER4;
use super::apart::Apart;

/// The bits that are used, where the configuration names none.
const MASK: u32 = 0xffff_3fff;

fn number(mark: u32) -> u32 {
    let bits = (0..32).filter(|bit| MASK >> bit & 1 == 1);
    bits.enumerate()
        .map(|(at, bit)| (mark >> bit & 1) << at)
        .sum()
}

fn mark(number: u32) -> u32 {
    let bits = (0..32).filter(|bit| MASK >> bit & 1 == 1);
    bits.enumerate()
        .map(|(at, bit)| (number >> at & 1) << bit)
        .sum()
}

/// What is asked is answered with an address, or not at all.
fn asks(agent: &mut Apart) -> Value {
    agent.does(&format!("ask bigquery.googleapis.com {OTHER4} udp"))
}

#[test]
fn a_mark_that_the_root_of_a_namespace_puts_on_its_questions_speaks_for_nobody_else() {
    let world = World::start(Family::V4);
    let mut agent = Apart::of(&world);
    agent.goes_apart();
    let _ = agent.must(&format!("reach {OTHER4} 53"));
    agent.runs("nft add table inet m");
    agent.runs("nft add set inet m seen { typeof meta mark ; flags dynamic ; }");
    agent.runs("nft add chain inet m in { type filter hook prerouting priority 0 ; }");
    agent.runs("nft add rule inet m in udp dport 842 add @seen { meta mark }");
    assert!(asks(&mut agent).get("ok").is_some());
    // Its own, which tells all others: they are numbered in a row.
    let listed: Value =
        serde_json::from_str(&agent.runs("nft --json list set inet m seen")).expect("JSON");
    let seen = listed["nftables"].as_array().expect("a list");
    let seen = seen
        .iter()
        .find_map(|part| part["set"]["elem"][0].as_u64())
        .expect("a mark");
    let own = number(u32::try_from(seen).expect("a mark"));
    let others = (own.saturating_sub(3)..=own + 3).filter(|other| *other != own);
    for other in others {
        agent.runs("nft flush chain inet m in");
        agent.runs(&format!(
            "nft add rule inet m in udp dport 842 meta mark set {}",
            mark(other)
        ));
        let told = asks(&mut agent);
        assert!(told.get("error").is_some(), "{other} for {own}: {told}");
    }
    agent.runs("nft delete table inet m");
    assert!(asks(&mut agent).get("ok").is_some());
}
