//! The pins of the maps: a daemon that starts finds what is protected, and from whom, only by them. A lost one is put back from the programs that
//! still ask its map.

use std::path::{Path, PathBuf};

use aya::maps::{MapData, MapError, MapInfo};
use aya::programs::loaded_programs;

use super::{KernelError, refused};
use crate::causes::Causes;

/// A map, as the daemon has it.
#[derive(Debug)]
pub(super) struct Pin {
    name: &'static str,
    path: PathBuf,
    id: u32,
}

impl Pin {
    /// What is pinned there now.
    pub(super) fn of(name: &'static str, path: PathBuf) -> Result<Self, KernelError> {
        let id =
            id_of(&path).map_err(|error| refused(format!("read the pin of {name}"))(&error))?;
        Ok(Self { name, path, id })
    }

    /// Whether it is pinned no more, or another is in its place.
    pub(super) fn lost(&self) -> Option<String> {
        let what = match id_of(&self.path) {
            Ok(id) if id == self.id => return None,
            Ok(_) => "another map is pinned in its place".to_owned(),
            Err(error) => Causes(&error).to_string(),
        };
        Some(format!(
            "the pin of the kernel's map {} is lost ({what}): restart the daemon, which puts it back",
            self.name
        ))
    }
}

fn id_of(path: &Path) -> Result<u32, MapError> {
    Ok(MapInfo::from_pin(path)?.id())
}

/// A map that must not be made anew while programs of ours are attached: they would be swapped for ones that know nothing yet.
#[derive(Debug, Clone, Copy)]
pub(super) struct Needed {
    /// What the programs call it.
    pub(super) name: &'static str,
    /// Its file, and those of the versions before it.
    pub(super) files: &'static [&'static str],
    /// How many entries it has room for.
    pub(super) entries: u32,
    /// Whether programs of an earlier version do not know it: then it holds nothing that could be lost.
    pub(super) is_new: bool,
}

/// Puts back the pins of these that are lost, from the `programs` that are attached.
///
/// # Errors
/// [`KernelError`] where one is lost and none of the programs has it: then nothing is changed, and they go on with what they know.
pub(super) fn put_back(dir: &Path, programs: &[u32], needed: &[Needed]) -> Result<(), KernelError> {
    let is_lost = |needed: &&Needed| !needed.files.iter().any(|file| dir.join(file).exists());
    let lost: Vec<&Needed> = needed.iter().filter(is_lost).collect();
    if programs.is_empty() || lost.is_empty() {
        return Ok(());
    }
    let maps = maps_of(programs);
    for needed in lost {
        let found = maps.iter().find(|info| {
            info.name_as_str() == Some(needed.name) && info.max_entries() == needed.entries
        });
        if found.is_none() && needed.is_new {
            continue;
        }
        let (Some(info), Some(file)) = (found, needed.files.first()) else {
            return Err(KernelError::Unsuited(format!(
                "the pin of the kernel's map {} is lost from {}, and no program that is attached has it: what is enforced stays, and a new start needs `enforcer detach` first",
                needed.name,
                dir.display()
            )));
        };
        let fail = || refused(format!("put back the pin of {}", needed.name));
        let map = MapData::from_id(info.id()).map_err(|error| fail()(&error))?;
        map.pin(dir.join(file)).map_err(|error| fail()(&error))?;
        tracing::warn!(
            map = needed.name,
            "the pin of a map was lost and is put back: find out who removed it"
        );
    }
    Ok(())
}

/// The maps that these programs ask.
fn maps_of(programs: &[u32]) -> Vec<MapInfo> {
    let loaded = loaded_programs().filter_map(Result::ok);
    let ours = loaded.filter(|program| programs.contains(&program.id()));
    let ids = ours.filter_map(|program| program.map_ids().ok().flatten());
    ids.flatten()
        .filter_map(|id| MapInfo::from_id(id).ok())
        .collect()
}
