//! Maps that were smaller in an earlier version: what they hold goes over into those that take their place, before any program asks these. So
//! a window that is open stays open, and nobody is taken for no agent, while a new daemon takes over.

use std::collections::BTreeMap;
use std::path::Path;

use aya::Pod;
use aya::maps::{HashMap, Map, MapData, MapError};
use enforcer_ebpf::{Agent, Window};

use super::load::{AGENTS, UIDS, WINDOWS};
use super::maps::absent_is_done;
use super::{KernelError, io, refused};

/// The files of the maps before.
const BEFORE: [&str; 3] = ["WINDOWS", "AGENTS-3", "UIDS"];

/// The files of maps whose entries go with sockets, and cannot be carried over.
const PAST: [&str; 1] = ["CREATORS"];

/// Makes the maps of now hold what those of before do, where there are such. They were let go with the last programs that ask them, so what
/// they hold is the truth as long as they are there.
pub(super) fn over(maps: &Path) -> Result<(), KernelError> {
    let [windows, agents, uids] = BEFORE;
    one::<u64, Window>(maps, windows, WINDOWS)?;
    one::<u64, Agent>(maps, agents, AGENTS)?;
    one::<u32, u32>(maps, uids, UIDS)
}

/// Lets go of the maps before: no program asks them any more.
pub(super) fn done(maps: &Path) -> Result<(), KernelError> {
    for file in BEFORE.into_iter().chain(PAST) {
        let pin = maps.join(file);
        match std::fs::remove_file(&pin) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(io(format!("remove {}", pin.display()))(error));
            }
            Ok(()) | Err(_) => {}
        }
    }
    Ok(())
}

fn one<K: Pod + Ord, V: Pod>(maps: &Path, before: &str, now: &str) -> Result<(), KernelError> {
    if !maps.join(before).exists() {
        return Ok(());
    }
    let fail = |error: MapError| refused(format!("carry over the map {before}"))(&error);
    let open = |file: &str| {
        let map = Map::from_map_data(MapData::from_pin(maps.join(file))?)?;
        HashMap::<MapData, K, V>::try_from(map)
    };
    let (before, mut now) = (open(before).map_err(fail)?, open(now).map_err(fail)?);
    let held: BTreeMap<K, V> = before.iter().collect::<Result<_, _>>().map_err(fail)?;
    for (key, value) in &held {
        now.insert(*key, *value, 0).map_err(fail)?;
    }
    let there: Vec<K> = now.keys().collect::<Result<_, _>>().map_err(fail)?;
    for key in there.iter().filter(|key| !held.contains_key(key)) {
        absent_is_done(now.remove(key)).map_err(fail)?;
    }
    Ok(())
}
