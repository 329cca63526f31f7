//! What the maps take of the kernel's memory, by the kernel's own account of each.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::Path;

use aya::maps::{Map, MapData};
use serde_json::{Value, json};

/// What every map that is pinned in a folder takes, by name.
pub(crate) fn of_pinned(dir: &Path) -> Vec<(String, u64)> {
    let mut all: Vec<(String, u64)> = std::fs::read_dir(dir)
        .expect("reads the pins")
        .map(|entry| {
            let path = entry.expect("reads").path();
            let map = MapData::from_pin(&path).expect("opens a map");
            let name = path.file_name().expect("a name").to_string_lossy();
            (name.into_owned(), of_file(map.fd().as_fd()))
        })
        .collect();
    all.sort();
    all
}

/// What a trie takes.
pub(crate) fn of_trie(map: &Map) -> u64 {
    let Map::LpmTrie(data) = map else {
        panic!("{map:?} is no trie");
    };
    of_file(data.fd().as_fd())
}

/// A kernel before 6.4 says how much it could be, a newer one how much it is; of a trie it counts what was put in, not the forks between.
fn of_file(map: BorrowedFd<'_>) -> u64 {
    let said = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", map.as_raw_fd()));
    let said = said.expect("reads its own descriptor");
    let bytes = said.lines().find_map(|line| line.strip_prefix("memlock:"));
    let bytes = bytes.expect("a map's account");
    bytes.trim().parse().expect("a number")
}

/// Prints it, a line each and the sum.
pub(crate) fn tell(what: &str, maps: &[(String, u64)]) {
    println!("memory of {what}, KiB");
    for (name, bytes) in maps {
        println!("  {name:<26}{:>10}", bytes.div_ceil(1024));
    }
    let sum: u64 = maps.iter().map(|(_, bytes)| bytes).sum();
    println!("  {:<26}{:>10}", "together", sum.div_ceil(1024));
}

/// The same, in bytes.
pub(crate) fn figure(maps: &[(String, u64)]) -> Value {
    let sum: u64 = maps.iter().map(|(_, bytes)| bytes).sum();
    let each: serde_json::Map<String, Value> = maps
        .iter()
        .map(|(name, bytes)| (name.clone(), json!(bytes)))
        .collect();
    json!({"bytes": each, "sum_bytes": sum})
}
