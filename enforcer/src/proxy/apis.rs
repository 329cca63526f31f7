//! Under which name of BigQuery's API the daemon looks at jobs and cancels them by itself. The names that are protected are those that agents
//! start jobs at, so one of them it is: another may not resolve on this host, or lead nowhere. Where one cannot be reached the next is tried.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::dns::protected::{Service, Universe, api_beside, service};

/// The global name, below the universe's domain: first where it is protected, and the one that is taken where no name is.
const GLOBAL: &str = "bigquery";
/// The other names under which every location's jobs are found.
const EVERYWHERE: [&str; 2] = ["www", "content-bigquery"];
/// One that serves other APIs than BigQuery's.
const OTHERS: &str = "content";
/// What a name has in it that wants a client's certificate, which the daemon has not.
const MUTUAL: &str = ".mtls.";
/// What a name ends with that serves one location, as the API's description has them.
const OF_LOCATION: [&str; 2] = [".rep", "-bigquery"];

/// The names, and whose turn it is.
#[derive(Debug)]
pub struct Apis {
    global: String,
    /// Those that find jobs of every location, the global one first.
    everywhere: Vec<String>,
    /// Those of one location each.
    of_locations: Vec<String>,
    turn: AtomicUsize,
}

/// A name that is asked, and the turn it was its.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Turn {
    pub(super) name: String,
    number: usize,
}

impl Apis {
    /// Those among the protected names, which are normalised.
    #[must_use]
    pub fn of(protected: &[String], universe: &Universe) -> Self {
        let global = universe.name(GLOBAL);
        let everywhere_too = EVERYWHERE.map(|name| universe.name(name));
        let ends = OF_LOCATION.map(|end| format!("{end}.{}", universe.domain()));
        let others = universe.name(OTHERS);
        let apis = protected.iter().filter_map(|name| match service(name) {
            Service::Api => Some(name.clone()),
            Service::Storage => Some(api_beside(name)),
            Service::Neighbour => None,
        });
        let apis = apis.filter(|name| !name.contains(MUTUAL) && *name != others);
        let is_of_location = |name: &String| {
            ends.iter().any(|end| name.ends_with(end)) && !everywhere_too.contains(name)
        };
        let (mut of_locations, mut everywhere): (Vec<String>, Vec<String>) =
            apis.partition(is_of_location);
        // A stable order: what the operator has named stays in theirs.
        everywhere.sort_by_key(|name| match name {
            name if *name == global => 0,
            name if everywhere_too.contains(name) => 1,
            _ => 2,
        });
        everywhere.dedup();
        of_locations.sort();
        of_locations.dedup();
        if everywhere.is_empty() && of_locations.is_empty() {
            everywhere.push(global.clone());
        }
        Self {
            global,
            everywhere,
            of_locations,
            turn: AtomicUsize::new(0),
        }
    }

    /// Where to ask first, whatever the location.
    #[must_use]
    pub fn first(&self) -> String {
        self.turn(None).name
    }

    /// Where to ask for a job of this location.
    pub(super) fn turn(&self, location: Option<&str>) -> Turn {
        let number = self.turn.load(Ordering::Relaxed);
        let serving: Vec<&String> = self.serving(location);
        // None of both is empty: see `of`.
        let name = serving
            .get(number % serving.len().max(1))
            .map_or(self.global.as_str(), |name| name.as_str());
        Turn {
            name: name.to_owned(),
            number,
        }
    }

    /// Those that find jobs of every location, and of this one; where there is none of either, all.
    fn serving(&self, location: Option<&str>) -> Vec<&String> {
        let location = location.unwrap_or_default().to_ascii_lowercase();
        let is_of_it = |name: &&String| {
            !location.is_empty()
                && (name.starts_with(&format!("{location}-"))
                    || name.contains(&format!(".{location}.")))
        };
        let here = self.of_locations.iter().filter(is_of_it);
        let serving: Vec<&String> = self.everywhere.iter().chain(here).collect();
        if serving.is_empty() {
            self.of_locations.iter().collect()
        } else {
            serving
        }
    }

    /// It could not be reached: it is the next one's turn, unless that is so already.
    pub(super) fn unreachable(&self, turn: &Turn) {
        let next = turn.number.wrapping_add(1);
        let _ = self
            .turn
            .compare_exchange(turn.number, next, Ordering::Relaxed, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dns::protected::protected_default;

    const GLOBAL: &str = "bigquery.googleapis.com";

    fn of(names: &[&str]) -> Apis {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        Apis::of(&names, &Universe::default())
    }

    fn in_turn(apis: &Apis, location: Option<&str>, count: usize) -> Vec<String> {
        let each = (0..count).map(|_| {
            let turn = apis.turn(location);
            apis.unreachable(&turn);
            // Whoever had asked at the same time changes nothing.
            apis.unreachable(&turn);
            turn.name
        });
        each.collect()
    }

    #[test]
    fn a_name_that_is_not_protected_is_not_asked_and_the_next_is_where_one_cannot_be_reached() {
        let apis = of(&["www.googleapis.com"]);
        assert_eq!(in_turn(&apis, Some("US"), 2), ["www.googleapis.com"; 2]);
        let apis = of(&[
            "bigquery-mine.p.googleapis.com",
            "www.googleapis.com",
            GLOBAL,
        ]);
        let names = [
            GLOBAL,
            "www.googleapis.com",
            "bigquery-mine.p.googleapis.com",
            GLOBAL,
        ];
        assert_eq!(in_turn(&apis, None, 4), names);
        assert_eq!(apis.turn(None), apis.turn(None), "as long as it answers");
    }

    #[test]
    fn a_name_of_one_location_is_asked_for_jobs_of_that_location() {
        let names = [
            "bigquery.europe-west3.rep.googleapis.com",
            "bigquerystorage.us-east1.rep.googleapis.com",
            "us-east4-bigquery.googleapis.com",
        ];
        let first = |location| of(&names).turn(Some(location)).name;
        assert_eq!(first("europe-west3"), names[0]);
        assert_eq!(first("US-EAST1"), "bigquery.us-east1.rep.googleapis.com");
        assert_eq!(first("us-east4"), names[2]);
        assert_eq!(in_turn(&of(&names), Some("EU"), 3).len(), 3, "all of them");
        let more = of(&[names[0], GLOBAL]);
        assert_eq!(in_turn(&more, Some("US"), 2), [GLOBAL; 2]);
        assert_eq!(in_turn(&more, Some("europe-west3"), 1).len(), 1);
    }

    #[test]
    fn the_global_name_is_asked_first_where_all_or_none_are_protected() {
        for names in [protected_default(&Universe::default()), Vec::new()] {
            assert_eq!(
                Apis::of(&names, &Universe::default()).turn(Some("US")).name,
                GLOBAL
            );
        }
        let all = Apis::of(
            &protected_default(&Universe::default()),
            &Universe::default(),
        );
        assert!(all.everywhere.iter().all(|name| !name.contains(MUTUAL)));
        let neighbours = of(&["bigqueryconnection.googleapis.com"]);
        assert_eq!(neighbours.turn(None).name, GLOBAL);
    }
}
