//! Has the agents' workloads told what container runtimes say, again and again, and at once where a container is seen of which none has told. Nobody waits
//! for it: what is asked meanwhile is decided by what was told last.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::clock::Clock;
use crate::config::Config;
use crate::pace::{Bucket, Pace};
use crate::runtimes::{ASK_AGAIN, Wanted, ask_all};
use crate::workloads::Workloads;

/// How long after one answer runtimes are asked again at the earliest.
const ASK_SOON: Duration = Duration::from_millis(100);
/// How often that may be sooner than after [`ASK_AGAIN`], whoever starts containers, and however many: past the first they are asked as often as ever.
const SOON: Pace = Pace {
    burst: 10,
    per_second: 1,
};

/// Asks the runtimes that the configuration names, if any, until `stop`.
pub(super) fn keep(
    config: &Config,
    workloads: &Arc<Workloads>,
    clock: &Arc<dyn Clock>,
    stop: &CancellationToken,
    tasks: &TaskTracker,
) {
    let (sockets, workloads, stop) = (config.runtimes.clone(), Arc::clone(workloads), stop.clone());
    if sockets.is_empty() {
        return;
    }
    let wanted = Wanted::of(&config.agents);
    let clock = Arc::clone(clock);
    tasks.spawn(async move {
        let again = async {
            let mut soon = Bucket::new(SOON);
            loop {
                rest(&mut soon, || workloads.unknown(), || clock.now().boot_ns).await;
                workloads.tell(&ask_all(&sockets, &wanted).await);
            }
        };
        stop.run_until_cancelled(again).await;
    });
}

/// Ends when runtimes are to be asked again.
async fn rest<F: Future<Output = ()>>(
    soon: &mut Bucket,
    unknown: impl Fn() -> F,
    boot_ns: impl Fn() -> u64,
) {
    let at_once = async {
        loop {
            tokio::time::sleep(ASK_SOON).await;
            unknown().await;
            if soon.take(1, boot_ns()) {
                return;
            }
        }
    };
    // Until the time is up either way.
    let _ = tokio::time::timeout(ASK_AGAIN, at_once).await;
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    /// How often runtimes are asked in so many seconds, where every so often a container is seen that none has told of.
    async fn asked(seconds: u64, every: Duration) -> usize {
        let began = Instant::now();
        let boot_ns = || u64::try_from(began.elapsed().as_nanos()).expect("a short time");
        let mut soon = Bucket::new(SOON);
        let mut times = 0;
        while began.elapsed() < Duration::from_secs(seconds) {
            let before = Instant::now();
            rest(&mut soon, || tokio::time::sleep(every), boot_ns).await;
            assert!(before.elapsed() >= ASK_SOON && before.elapsed() <= ASK_AGAIN);
            times += 1;
        }
        times
    }

    #[tokio::test(start_paused = true)]
    async fn runtimes_are_asked_once_a_second_and_at_once_for_a_new_container_but_not_without_bound()
     {
        assert_eq!(asked(100, Duration::MAX / 4).await, 100);
        // Ten sooner, and then as often as ever.
        let most = asked(100, Duration::ZERO).await;
        assert!((105..=111).contains(&most), "{most}");
    }
}
