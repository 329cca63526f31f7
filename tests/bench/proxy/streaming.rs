//! A result that streams, page after page: how much of it comes through in a second, and what holding it takes. Each result is much larger than
//! what any of them may hold.

use serde_json::{Map, Value, json};

use super::lab::{Lab, Way};
use super::table;
use crate::turns::output;

const ROUNDS: u32 = 5;
/// Rows of each result, and how many come at once.
const ROWS: u32 = 128 * 1024;
const CONNECTIONS: [u32; 2] = [1, 4];

/// Measures it, prints it and notes it.
pub(super) fn bench(lab: &Lab, figures: &mut Map<String, Value>) {
    let mut medians = Vec::new();
    let mut peaks = [0; 5];
    table::head(&format!("results of {} MiB each, MB/s", ROWS / 1024));
    for connections in CONNECTIONS {
        let mut taken = Way::ALL.map(|_| Vec::new());
        for round in 0..ROUNDS {
            for (at, way) in Way::ALL.into_iter().enumerate() {
                let processes = lab.processes(way);
                processes.iter().for_each(|pid| forget_peak(*pid));
                taken[at].push(one(lab, way, round, connections));
                let peak = processes.iter().map(|pid| peak_kib(*pid)).sum();
                peaks[at] = peaks[at].max(peak);
            }
        }
        let median = taken.map(|mut taken| {
            taken.sort_by(f64::total_cmp);
            taken[taken.len() / 2]
        });
        table::row(&format!("{connections} at once"), &median);
        medians.push(median);
    }
    let [one, four] = [medians[0], medians[1]];
    table::row(
        "most memory meanwhile, MiB",
        &peaks.map(|kib| kib as f64 / 1024.0),
    );
    for (name, figure) in [
        (
            "throughput_mb_s",
            table::each(|at| json!({"1": one[at], "4": four[at]})),
        ),
        ("throughput_ratio_vs", table::ratios(&four)),
        ("throughput_of_one_ratio_vs", table::ratios(&one)),
        ("memory_kib", table::each(|at| json!(peaks[at]))),
    ] {
        figures.insert(name.to_owned(), figure);
    }
}

fn one(lab: &Lab, way: Way, round: u32, connections: u32) -> f64 {
    let [server, roots] = lab.to(way);
    let (connections, rows) = (connections.to_string(), ROWS.to_string());
    let said = output(lab.work(round, &["stream", &server, &roots, &connections, &rows]));
    let speed: u32 = said.trim().parse().expect("a number");
    f64::from(speed)
}

/// From here on the most that a process has held counts anew.
fn forget_peak(pid: u32) {
    std::fs::write(format!("/proc/{pid}/clear_refs"), "5").expect("forgets the peak");
}

fn peak_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("reads");
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let peak = peak.expect("a peak").trim().trim_end_matches(" kB");
    peak.parse().expect("a number")
}
