//! More prefixes than the product's bound allows: the same kernel object with larger tries, attached here and pinned nowhere, since the
//! question is how the lookup grows and not what may be configured.

use std::fs::File;

use aya::maps::MapError;
use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::programs::{CgroupAttachMode, CgroupSkbAttachType, Program, ProgramError};
use aya::{Ebpf, EbpfLoader};
use enforcer_ebpf::Endpoint;
use enforcer_ebpf::map::CLASS_DEDICATED;
use ipnet::IpNet;
use serde_json::{Map, Value};

use crate::memory;
use crate::turns::{Places, prefixes};

static OBJECT: &[u8] = aya::include_bytes_aligned!("../../enforcer-ebpf/prebuilt/enforcer.bpf.o");
const PREFIXES: u32 = 1_000_000;
const TRIES: [&str; 2] = ["ENDPOINTS4", "ENDPOINTS6"];

/// Measures with a million prefixes, and prints it.
pub(crate) fn bench(figures: &mut Map<String, Value>) {
    let places = Places::new();
    let mut ebpf = load();
    attach(&mut ebpf, &places).expect("attaches");
    fill(&mut ebpf).expect("writes the prefixes");
    places.rows(PREFIXES, figures);
    let tries = TRIES.map(|name| {
        let map = ebpf.map(name).expect("a map");
        (name.to_owned(), memory::of_trie(map))
    });
    memory::tell(&format!("the tries with {PREFIXES} prefixes"), &tries);
    figures.insert(format!("memory_{PREFIXES}"), memory::figure(&tries));
}

fn load() -> Ebpf {
    let mut loader = EbpfLoader::new();
    for name in TRIES {
        loader.map_max_entries(name, PREFIXES);
    }
    loader.load(OBJECT).expect("the kernel takes it")
}

/// What the daemon attaches at the root, with the library's own means: these links go with this process.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "aya's kinds of programs, of which five are at the root"
)]
fn attach(ebpf: &mut Ebpf, places: &Places) -> Result<(), ProgramError> {
    let root = File::open(places.root()).expect("opens the cgroup");
    let mode = CgroupAttachMode::Single;
    for (_, program) in ebpf.programs_mut() {
        match program {
            Program::CgroupSkb(program) => {
                program.load()?;
                program.attach(&root, CgroupSkbAttachType::Egress, mode)?;
            }
            Program::CgroupSock(program) => {
                program.load()?;
                program.attach(&root, mode)?;
            }
            Program::CgroupSockAddr(program) => {
                program.load()?;
                program.attach(&root, mode)?;
            }
            Program::SockOps(program) => {
                program.load()?;
                program.attach(&root, mode)?;
            }
            Program::CgroupSockopt(program) => {
                program.load()?;
                program.attach(&root, mode)?;
            }
            // The guard of interfaces is the same with and without.
            _ => {}
        }
    }
    Ok(())
}

fn fill(ebpf: &mut Ebpf) -> Result<(), MapError> {
    let endpoint = Endpoint {
        class: CLASS_DEDICATED,
    };
    let map = ebpf.map_mut(TRIES[0]).expect("a map");
    let mut v4: LpmTrie<_, [u8; 4], Endpoint> = map.try_into()?;
    for net in prefixes(PREFIXES) {
        if let IpNet::V4(net) = net {
            v4.insert(&Key::new(32, net.addr().octets()), endpoint, 0)?;
        }
    }
    let map = ebpf.map_mut(TRIES[1]).expect("a map");
    let mut v6: LpmTrie<_, [u8; 16], Endpoint> = map.try_into()?;
    for net in prefixes(PREFIXES) {
        if let IpNet::V6(net) = net {
            v6.insert(&Key::new(128, net.addr().octets()), endpoint, 0)?;
        }
    }
    Ok(())
}
